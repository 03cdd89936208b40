"""Two people chat through a homeserver with an unmodified matrix-nio, in unencrypted rooms.

    nio_scenario.py BASE_URL [REGISTRATION_TOKEN]

The scenario talks with its starter in JSON lines. On stdout:

    {"claim": "..."}                     something that was checked and holds
    {"phase": "sending", ...}            messages are under way: now is the time to kill the server
    {"phase": "broken", ...}             the client has noticed
    {"phase": "done", "claims": N}       everything holds; exit status 0
    {"phase": "failed", "error": "..."}  it does not; exit status 1

On stdin, after "broken": {"base_url": "..."}, where the restarted server listens. Every wait is
bounded; what came before the failure can be read from the claims.
"""

import asyncio
import json
import sys
import traceback

import nio

PASSWORD = "correct horse battery staple"
WAIT_SECONDS = 30
# Enough to be in the middle of things, and a bound should nobody kill the server.
ACKNOWLEDGED_BEFORE_KILL = 20
SENDS_MAX = 5000
SENDERS = 4

claims = 0
clients = []
registration_token = sys.argv[2] if len(sys.argv) > 2 else None


def tell(**line):
    print(json.dumps(line), flush=True)


def claim(text, holds, *evidence):
    """Goes on if `holds`; otherwise stops the scenario and shows the evidence."""
    global claims
    if not holds:
        shown = "; ".join(repr(piece) for piece in evidence)
        raise AssertionError(f"{text}: does not hold ({shown})")
    claims += 1
    tell(claim=text)


def expect(kind, response):
    """The response, if it is of the wanted class."""
    if not isinstance(response, kind):
        raise AssertionError(f"expected {kind.__name__}, got {response!r}")
    return response


def new_client(base_url, user=""):
    # No silent retries: the scenario wants to see each failed request.
    config = nio.AsyncClientConfig(
        max_timeouts=0, encryption_enabled=False, request_timeout=WAIT_SECONDS
    )
    clients.append(nio.AsyncClient(base_url, user, config=config))
    return clients[-1]


def text(body):
    return {"msgtype": "m.text", "body": body}


async def send(client, room_id, body, txn_id=None):
    response = await client.room_send(room_id, "m.room.message", text(body), tx_id=txn_id)
    return expect(nio.RoomSendResponse, response).event_id


async def sync(client, timeout_ms=0, **arguments):
    return expect(nio.SyncResponse, await client.sync(timeout=timeout_ms, **arguments))


async def sync_until(client, wanted):
    """Syncs on until `wanted(response)` gives something; long-polls, never sleeps."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            found = wanted(await sync(client, timeout_ms=10_000))
            if found:
                return found


def timeline_of(response, room_id):
    room = response.rooms.join.get(room_id)
    return room.timeline.events if room else []


def bodies(events):
    return [event.body for event in events if isinstance(event, nio.RoomMessageText)]


async def page_back(client, room_id, start, limit=10, **arguments):
    """All events from `start` back to the beginning, newest first."""
    events = []
    for _ in range(2 * SENDS_MAX // limit):
        page = await client.room_messages(room_id, start, limit=limit, **arguments)
        page = expect(nio.RoomMessagesResponse, page)
        events += page.chunk
        if not page.end:
            return events
        start = page.end
    raise AssertionError(f"paging back did not end after {len(events)} events")


async def register(client, name):
    """Makes an account the way nio does it, with the registration token if there is one."""
    if registration_token:
        registered = await client.register_with_token(
            name, PASSWORD, registration_token, device_name="nio"
        )
    else:
        registered = await client.register(name, PASSWORD, device_name="nio")
    expect(nio.RegisterResponse, registered)


async def accounts(base_url):
    alice, bob = new_client(base_url, "alice"), new_client(base_url, "bob")
    challenge = await alice.register_interactive("alice", PASSWORD, auth_dict={"initial_device_display_name": "nio"})
    # What nio itself sends first when it registers with a token; it counts the 401 with flows as an
    # answer and not as an error.
    claim(
        "registering without an auth stage is answered with flows and a session",
        getattr(challenge, "session", None) and getattr(challenge, "stages", None),
        challenge,
    )
    await register(alice, "alice")
    await register(bob, "bob")
    claim("two people registered", alice.user_id != bob.user_id and alice.access_token)

    taken = await new_client(base_url).register("alice", PASSWORD)
    claim("a name is given once", getattr(taken, "status_code", None) == "M_USER_IN_USE", taken)

    me = expect(nio.WhoamiResponse, await alice.whoami())
    claim("whoami knows user and device", (me.user_id, me.device_id) == (alice.user_id, alice.device_id), me)

    second = new_client(base_url, alice.user_id)
    wrong = await second.login("not the password")
    claim("a wrong password is refused", getattr(wrong, "status_code", None) == "M_FORBIDDEN", wrong)
    expect(nio.LoginResponse, await second.login(PASSWORD, device_name="second"))
    devices = expect(nio.DevicesResponse, await alice.devices()).devices
    names = {device.id: device.display_name for device in devices}
    claim(
        "both devices are listed by name",
        names == {alice.device_id: "nio", second.device_id: "second"},
        names,
    )
    expect(nio.LogoutResponse, await second.logout())
    devices = expect(nio.DevicesResponse, await alice.devices()).devices
    claim("logging out removes the device", [d.id for d in devices] == [alice.device_id], devices)

    expect(nio.ProfileSetDisplayNameResponse, await alice.set_displayname("Alice A."))
    profile = expect(nio.ProfileGetResponse, await bob.get_profile(alice.user_id))
    claim("a display name can be seen by others", profile.displayname == "Alice A.", profile)
    return alice, bob


async def meet(alice, bob):
    created = await alice.room_create(name="Ropewalk", topic="strands", preset=nio.RoomPreset.private_chat)
    room_id = expect(nio.RoomCreateResponse, created).room_id
    await sync(alice)
    await sync(bob)

    refused = await bob.join(room_id)
    claim("nobody joins without an invitation", getattr(refused, "status_code", None) == "M_FORBIDDEN", refused)
    refused = await bob.room_send(room_id, "m.room.message", text("let me in"))
    claim("nobody sends from outside", getattr(refused, "status_code", None) == "M_FORBIDDEN", refused)

    expect(nio.RoomInviteResponse, await alice.room_invite(room_id, bob.user_id))
    invited = await sync_until(bob, lambda response: response.rooms.invite.get(room_id))
    stripped = {type(event).__name__: event for event in invited.invite_state}
    claim("the invitation tells the room's name", stripped["InviteNameEvent"].name == "Ropewalk", stripped)

    expect(nio.JoinResponse, await bob.join(room_id))
    await sync_until(bob, lambda response: room_id in response.rooms.join)
    room = bob.rooms[room_id]
    claim("who joins gets the state", (room.name, room.topic) == ("Ropewalk", "strands"), room)
    claim(
        "who joins sees who else is there",
        {alice.user_id, bob.user_id} <= set(room.users) and room.user_name(alice.user_id) == "Alice A.",
        room.users,
    )
    joined = expect(nio.JoinedMembersResponse, await alice.joined_members(room_id))
    members = {member.user_id for member in joined.members}
    claim("both are members", members == {alice.user_id, bob.user_id}, members)
    rooms = expect(nio.JoinedRoomsResponse, await bob.joined_rooms()).rooms
    claim("the room is among the joined ones", rooms == [room_id], rooms)
    await sync(alice)
    return room_id


async def chat(alice, bob, room_id):
    waiting = asyncio.create_task(
        sync_until(bob, lambda response: timeline_of(response, room_id))
    )
    hello = await send(alice, room_id, "hello")
    events = await waiting
    claim("a message wakes the other's long poll", [e.event_id for e in events] == [hello], events)
    claim("it says who sent it", events[0].sender == alice.user_id, events)

    answer = await send(bob, room_id, "hello yourself", txn_id="answer")
    again = await send(bob, room_id, "hello yourself", txn_id="answer")
    claim("a repeated transaction id gives the same event", answer == again, answer, again)
    events = await sync_until(alice, lambda response: timeline_of(response, room_id))
    said = bodies(events)
    claim("it is not doubled", said.count("hello yourself") == 1, said)

    for kind, key, value in [("m.room.name", "name", "Rope"), ("m.room.topic", "topic", "twisting")]:
        expect(nio.RoomPutStateResponse, await alice.room_put_state(room_id, kind, {key: value}))
        await sync_until(bob, lambda response: timeline_of(response, room_id))
        claim(f"{kind} changes for all", getattr(bob.rooms[room_id], key) == value, bob.rooms[room_id])
        state = await bob.room_get_state_event(room_id, kind)
        content = expect(nio.RoomGetStateEventResponse, state).content
        claim(f"{kind} can be read", content.get(key) == value, content)
    refused = await bob.room_put_state(room_id, "m.room.name", {"name": "Bob's"})
    claim("names need power", getattr(refused, "status_code", None) == "M_FORBIDDEN", refused)

    slip = await send(alice, room_id, "a slip of the tongue")
    refused = await bob.room_redact(room_id, slip)
    claim("nobody redacts another's words without power", getattr(refused, "status_code", None) == "M_FORBIDDEN", refused)
    expect(nio.RoomRedactResponse, await alice.room_redact(room_id, slip, reason="never mind"))
    seen = await sync_until(
        bob,
        lambda response: [e for e in timeline_of(response, room_id) if isinstance(e, nio.RedactionEvent)],
    )
    claim("a redaction names its target and reason", (seen[0].redacts, seen[0].reason) == (slip, "never mind"), seen)
    event = expect(nio.RoomGetEventResponse, await bob.room_get_event(room_id, slip)).event
    claim(
        "what was redacted is gone for good",
        isinstance(event, nio.RedactedEvent) and event.source["content"] == {},
        event,
    )
    return answer


async def presence_of_mind(alice, bob, room_id, last):
    """Typing, receipts, read markers."""

    def typing(response):
        room = response.rooms.join.get(room_id)
        return room and [e.users for e in room.ephemeral if isinstance(e, nio.TypingNoticeEvent)]

    expect(nio.RoomTypingResponse, await alice.room_typing(room_id, True, timeout=30_000))
    users = await sync_until(bob, typing)
    claim("typing shows", users[-1] == [alice.user_id], users)
    expect(nio.RoomTypingResponse, await alice.room_typing(room_id, False))
    users = await sync_until(bob, typing)
    claim("and stops showing", users[-1] == [], users)

    def receipts(response):
        room = response.rooms.join.get(room_id)
        events = room.ephemeral if room else []
        found = [r for e in events if isinstance(e, nio.ReceiptEvent) for r in e.receipts]
        return [(r.user_id, r.event_id, r.receipt_type) for r in found if r.user_id == bob.user_id]

    receipt = await bob.update_receipt_marker(room_id, last)
    expect(nio.UpdateReceiptMarkerResponse, receipt)
    found = await sync_until(alice, receipts)
    claim("a receipt reaches the sender", (bob.user_id, last, "m.read") in found, found)

    def fully_read(response):
        room = response.rooms.join.get(room_id)
        events = room.account_data if room else []
        return [e.event_id for e in events if isinstance(e, nio.FullyReadEvent)]

    marked = await bob.room_read_markers(room_id, fully_read_event=last, read_event=last)
    expect(nio.RoomReadMarkersResponse, marked)
    found = await sync_until(bob, fully_read)
    claim("a read marker comes back to its owner", found[-1] == last, found)


async def history(alice, bob, room_id):
    for number in range(30):
        await send(alice if number % 2 else bob, room_id, f"line {number}")
    await sync(alice)
    end = alice.next_batch

    back = await page_back(alice, room_id, end, limit=7)
    ids = [event.event_id for event in back]
    claim("paging back gives nothing twice", len(ids) == len(set(ids)), ids)
    lines = [body for body in reversed(bodies(back)) if body.startswith("line ")]
    claim("and everything in order", lines == [f"line {n}" for n in range(30)], lines)
    claim("and ends at the beginning", isinstance(back[-1], nio.RoomCreateEvent), back[-1])

    forth, start = [], None
    for _ in range(100):
        page = await alice.room_messages(
            room_id, start, direction=nio.MessageDirection.front, limit=9
        )
        page = expect(nio.RoomMessagesResponse, page)
        forth += page.chunk
        if not page.end or not page.chunk:
            break
        start = page.end
    claim("paging forth is the same, turned round", [e.event_id for e in reversed(forth)] == ids, forth)

    timeline = (await sync(bob)).rooms.join[room_id].timeline
    claim("a long gap is announced as limited", timeline.limited and timeline.prev_batch, timeline)
    rest = await page_back(bob, room_id, timeline.prev_batch)
    together = [e.event_id for e in reversed(timeline.events)] + [e.event_id for e in rest]
    claim("and paging fills it without overlap", together == ids, together)

    fresh = new_client(bob.homeserver, bob.user_id)
    expect(nio.LoginResponse, await fresh.login(PASSWORD))
    limit = {"room": {"timeline": {"limit": 3}}}
    timeline = (await sync(fresh, sync_filter=limit)).rooms.join[room_id].timeline
    claim("a filter's limit holds", bodies(timeline.events) == ["line 27", "line 28", "line 29"], timeline)
    uploaded = expect(nio.UploadFilterResponse, await fresh.upload_filter(room=limit["room"]))
    fresh.next_batch = ""
    timeline = (await sync(fresh, sync_filter=uploaded.filter_id)).rooms.join[room_id].timeline
    claim("also when uploaded", len(timeline.events) == 3 and timeline.limited, timeline)
    expect(nio.LogoutResponse, await fresh.logout())

    middle = next(e for e in back if getattr(e, "body", "") == "line 15")
    around = await bob.room_context(room_id, middle.event_id, limit=4)
    around = expect(nio.RoomContextResponse, around)
    claim(
        "context shows both sides of an event",
        [bodies(around.events_before), bodies(around.events_after)]
        == [["line 14", "line 13"], ["line 16", "line 17"]],
        around,
    )


async def third_person(base_url, alice, room_id):
    carol = new_client(base_url, "carol")
    await register(carol, "carol")
    domain = alice.user_id.split(":", 1)[1]

    def last_membership(kind):
        return lambda response: getattr(response.rooms, kind).get(room_id)

    expect(nio.RoomInviteResponse, await alice.room_invite(room_id, carol.user_id))
    await sync_until(carol, last_membership("invite"))
    expect(nio.RoomLeaveResponse, await carol.room_leave(room_id))
    await sync_until(carol, last_membership("leave"))
    expect(nio.RoomForgetResponse, await carol.room_forget(room_id))
    claim("an invitation can be declined and forgotten", True)

    alias = f"#walk:{domain}"
    expect(nio.RoomPutAliasResponse, await alice.room_put_alias(alias, room_id))
    found = expect(nio.RoomResolveAliasResponse, await carol.room_resolve_alias(alias))
    claim("an alias leads to the room", found.room_id == room_id, found)

    public = await alice.room_create(
        visibility=nio.RoomVisibility.public, preset=nio.RoomPreset.public_chat, name="Market", alias="market"
    )
    public = expect(nio.RoomCreateResponse, public).room_id
    listed = expect(nio.responses.PublicRoomsResponse, await carol.list_public_rooms()).public_rooms
    claim("the directory lists public rooms only", [r.room_id for r in listed] == [public], listed)
    joined = await carol.join(f"#market:{domain}")
    claim("anyone joins a public room by alias", getattr(joined, "room_id", None) == public, joined)

    expect(nio.RoomKickResponse, await alice.room_kick(public, carol.user_id, reason="closing time"))
    await sync_until(carol, lambda response: response.rooms.leave.get(public))
    expect(nio.JoinResponse, await carol.join(public))
    expect(nio.RoomBanResponse, await alice.room_ban(public, carol.user_id))
    refused = await carol.join(public)
    claim("who is banned stays out", refused.transport_response.status == 403, refused)
    expect(nio.RoomUnbanResponse, await alice.room_unban(public, carol.user_id))
    expect(nio.JoinResponse, await carol.join(public))
    claim("until unbanned", True)
    expect(nio.LogoutResponse, await carol.logout())


async def crash(alice, bob, room_id):
    """Sends until the server dies, waits for its return and takes stock."""
    await sync(alice)
    await sync(bob)
    tokens = {alice.user_id: alice.next_batch, bob.user_id: bob.next_batch}
    acknowledged, pending = {}, {}
    told = False

    async def sender(client, name):
        nonlocal told
        for number in range(SENDS_MAX):
            body = f"crash {name} {number}"
            pending[body] = client
            acknowledged[body] = await send(client, room_id, body, txn_id=body)
            del pending[body]
            if len(acknowledged) >= ACKNOWLEDGED_BEFORE_KILL and not told:
                told = True
                tell(phase="sending", acknowledged=len(acknowledged))
        raise AssertionError("the server outlived all sends: nobody killed it")

    # Bob keeps a long poll open too, as clients do, and does not use what it brings.
    async def listener(client):
        since = tokens[client.user_id]
        while True:
            since = (await sync(client, timeout_ms=10_000, since=since)).next_batch

    workers = [sender(alice if n % 2 else bob, f"s{n}") for n in range(SENDERS)]
    outcomes = await asyncio.gather(*workers, listener(bob), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, AssertionError):
            raise outcome
    tell(phase="broken", acknowledged=len(acknowledged), unacknowledged=len(pending))

    line = await asyncio.to_thread(sys.stdin.readline)
    base_url = json.loads(line)["base_url"]
    for client in (alice, bob):
        await client.close()
        client.homeserver = base_url
        client.next_batch = tokens[client.user_id]

    me = expect(nio.WhoamiResponse, await alice.whoami())
    claim("an access token outlives the crash", me.user_id == alice.user_id, me)
    for body, client in pending.items():
        acknowledged[body] = await send(client, room_id, body, txn_id=body)
    for body in list(acknowledged)[:5]:
        client = alice if body.split()[1] in ("s1", "s3") else bob
        event_id = await send(client, room_id, body, txn_id=body)
        claim("a transaction id outlives the crash", event_id == acknowledged[body], body)

    for client in (alice, bob):
        timeline = (await sync(client)).rooms.join[room_id].timeline
        seen = list(timeline.events)
        if timeline.limited:
            older = await page_back(client, room_id, timeline.prev_batch, limit=50)
            seen = list(reversed(older)) + seen
        said = [(e.body, e.event_id) for e in seen if getattr(e, "body", "").startswith("crash ")]
        claim("sync goes on from the old token and nothing is doubled", len(said) == len(set(b for b, _ in said)), said)
        claim("no acknowledged message is lost", dict(said) == acknowledged, set(acknowledged) ^ set(dict(said)))
    for number in range(SENDERS):
        mine = [int(b.split()[2]) for b, _ in said if b.split()[1] == f"s{number}"]
        claim("each sender's messages are in order", mine == sorted(mine), mine)

    hello = await send(alice, room_id, "still here")
    events = await sync_until(bob, lambda response: timeline_of(response, room_id))
    claim("and the talk goes on", events[-1].event_id == hello, events)


async def leave(alice, bob):
    token = alice.access_token
    expect(nio.LogoutResponse, await alice.logout())
    alice.access_token = token
    refused = await alice.whoami()
    claim("a logged-out token is unknown", getattr(refused, "status_code", None) == "M_UNKNOWN_TOKEN", refused)
    expect(nio.LogoutResponse, await bob.logout(all_devices=True))


async def main(base_url):
    try:
        alice, bob = await accounts(base_url)
        room_id = await meet(alice, bob)
        last = await chat(alice, bob, room_id)
        await presence_of_mind(alice, bob, room_id, last)
        await history(alice, bob, room_id)
        await third_person(base_url, alice, room_id)
        await crash(alice, bob, room_id)
        await leave(alice, bob)
    finally:
        for client in clients:
            await client.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1]))
    except Exception as error:
        traceback.print_exc()
        tell(phase="failed", error=f"{type(error).__name__}: {error}")
        sys.exit(1)
    tell(phase="done", claims=claims)
