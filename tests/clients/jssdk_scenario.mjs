// Two people chat through a homeserver with an unmodified matrix-js-sdk, in unencrypted rooms.
//
//     node jssdk_scenario.mjs FOLDER_WITH_NODE_MODULES BASE_URL
//
// The scenario talks with its starter in JSON lines, the same way as nio_scenario.py: claims and
// phases on stdout, {"base_url": "..."} on stdin once the server has been killed and restarted.

import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// matrix-js-sdk 43 asks for Node 22; these are what it misses on 20.
Promise.withResolvers ??= function () {
    let resolve, reject;
    const promise = new Promise((yes, no) => ([resolve, reject] = [yes, no]));
    return { promise, resolve, reject };
};
Uint8Array.prototype.toBase64 ??= function ({ alphabet = "base64", omitPadding = false } = {}) {
    const padded = Buffer.from(this).toString(alphabet);
    return omitPadding ? padded.replace(/=+$/, "") : padded;
};
Uint8Array.fromBase64 ??= (text) => new Uint8Array(Buffer.from(text, "base64"));

// stdout belongs to the protocol with our starter; the library's chatter would drown the failure.
for (const method of ["debug", "info", "log", "trace", "warn"]) {
    console[method] = () => {};
}

const [modules, baseUrl] = process.argv.slice(2);
const entry = createRequire(join(modules, "x.js")).resolve("matrix-js-sdk");
const sdk = await import(pathToFileURL(entry));

const PASSWORD = "correct horse battery staple";
const WAIT_MS = 30_000;
const ACKNOWLEDGED_BEFORE_KILL = 20;
const SENDS_MAX = 5000;

let claims = 0;
let currentBase = baseUrl;
let serverRun = 1;
const clients = [];

function tell(line) {
    process.stdout.write(JSON.stringify(line) + "\n");
}

function claim(text, holds, ...evidence) {
    if (!holds) {
        throw new Error(`${text}: does not hold (${evidence.map((e) => JSON.stringify(e)).join("; ")})`);
    }
    claims += 1;
    tell({ claim: text });
}

/** The promise, unless it takes too long. */
function inTime(what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what}: nothing came in ${WAIT_MS} ms`)), WAIT_MS);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Waits until `wanted()` gives something, asking again at the named events and after each sync. */
function until(what, emitter, events, wanted) {
    events = [...events, sdk.ClientEvent.Sync];
    const { promise, resolve, reject } = Promise.withResolvers();
    const look = () => {
        try {
            const found = wanted();
            if (found) resolve(found);
        } catch (error) {
            reject(error);
        }
    };
    events.forEach((event) => emitter.on(event, look));
    look();
    return inTime(what, promise).finally(() => events.forEach((event) => emitter.off(event, look)));
}

/** What a call is refused with, as "status errcode". */
async function refusal(promise) {
    try {
        return { granted: await promise };
    } catch (error) {
        return `${error.httpStatus} ${error.errcode}`;
    }
}

/** A client whose syncs are written down, and which follows the server to its new address. */
function newClient(options = {}) {
    const syncs = [];
    const fetchFn = async (resource, init) => {
        const url = new URL(String(resource).replace(baseUrl, currentBase));
        const sync = url.pathname.endsWith("/sync")
            ? { serverRun, since: url.searchParams.get("since"), ok: false }
            : undefined;
        if (sync) syncs.push(sync);
        const response = await fetch(url, init);
        if (sync) sync.ok = response.ok;
        return response;
    };
    const client = sdk.createClient({ baseUrl, fetchFn, localTimeoutMs: WAIT_MS, timelineSupport: true, ...options });
    client.syncsSeen = syncs;
    clients.push(client);
    return client;
}

function loggedIn({ user_id: userId, device_id: deviceId, access_token: accessToken }) {
    return newClient({ userId, deviceId, accessToken });
}

async function start(client, initialSyncLimit = 8) {
    const prepared = until("the first sync", client, [], () => client.isInitialSyncComplete());
    await client.startClient({
        initialSyncLimit,
        lazyLoadMembers: true,
        pendingEventOrdering: sdk.PendingEventOrdering.Detached,
    });
    await prepared;
}

/** Registers the way Element does: ask, be challenged, pass the stages that the server names. */
async function register(username) {
    const client = newClient();
    const challenges = [];
    const auth = new sdk.InteractiveAuth({
        matrixClient: client,
        doRequest: async (auth) => {
            try {
                return await client.registerRequest({ username, password: PASSWORD, auth: auth ?? undefined });
            } catch (error) {
                challenges.push(error.data);
                throw error;
            }
        },
        stateUpdated: () => {},
        requestEmailToken: async () => ({ sid: "" }),
    });
    const registered = await inTime("registering", auth.attemptAuth());
    claim(
        `${username} registers through interactive authentication`,
        registered.access_token && challenges[0]?.flows && challenges[0]?.session,
        registered,
        challenges,
    );
    return loggedIn(registered);
}

const timeline = (room) => room.getLiveTimeline().getEvents();
const bodies = (events) => events.map((event) => event.getContent().body).filter(Boolean);

async function meet(alice, bob) {
    await inTime("display name", alice.setDisplayName("Alice A."));
    const profile = await bob.getProfileInfo(alice.getUserId());
    claim("a display name can be seen by others", profile.displayname === "Alice A.", profile);

    const { room_id: roomId } = await inTime(
        "creating",
        alice.createRoom({ name: "Ropewalk", topic: "strands", preset: sdk.Preset.PrivateChat }),
    );
    claim(
        "nobody joins without an invitation",
        (await refusal(bob.joinRoom(roomId))) === "403 M_FORBIDDEN",
    );
    await alice.invite(roomId, bob.getUserId());
    const invitation = await until("the invitation", bob, [sdk.RoomEvent.MyMembership, sdk.ClientEvent.Room], () => {
        const room = bob.getRoom(roomId);
        return room?.getMyMembership() === "invite" && room;
    });
    claim("an invitation tells the room's name", invitation.name === "Ropewalk", invitation.name);
    await inTime("joining", bob.joinRoom(roomId));
    const room = await until("the join", bob, [sdk.RoomEvent.MyMembership, sdk.RoomEvent.Timeline], () => {
        const room = bob.getRoom(roomId);
        return room?.getMyMembership() === "join" && room;
    });
    await until("the state", bob, [], () => room.name === "Ropewalk");
    await inTime("the members", room.loadMembersIfNeeded());
    const members = room.getJoinedMembers().map((member) => [member.userId, member.name]).sort();
    claim(
        "who joins sees who else is there",
        members.length === 2 && members[0][1] === "Alice A.",
        members,
    );
    await until("bob in alice's eyes", alice, [sdk.RoomMemberEvent.Membership], () => {
        return alice.getRoom(roomId)?.getMember(bob.getUserId())?.membership === "join";
    });
    claim("who invited sees the join", true);
    return roomId;
}

async function chat(alice, bob, roomId) {
    const [hers, his] = [alice.getRoom(roomId), bob.getRoom(roomId)];
    const said = (room, client, body) =>
        until(body, client, [sdk.RoomEvent.Timeline, sdk.RoomEvent.LocalEchoUpdated], () => {
            return timeline(room).find((event) => event.getContent().body === body);
        });

    const { event_id: hello } = await inTime("sending", alice.sendTextMessage(roomId, "hello"));
    const seen = await said(his, bob, "hello");
    claim("a message reaches the other", seen.getId() === hello && seen.getSender() === alice.getUserId(), seen.event);
    const own = await said(hers, alice, "hello");
    claim(
        "its echo is recognised by its transaction id",
        hers.getPendingEvents().length === 0 && own.getUnsigned().transaction_id && own.getId() === hello,
        own.event,
    );
    claim("others do not see that id", seen.getUnsigned().transaction_id === undefined, seen.event);
    await inTime("answering", bob.sendTextMessage(roomId, "hello yourself"));
    await said(hers, alice, "hello yourself");
    claim("and the answer comes back", true);

    await alice.setRoomName(roomId, "Rope");
    await until("the name", bob, [sdk.RoomEvent.Name], () => his.name === "Rope");
    await alice.setRoomTopic(roomId, "twisting");
    const topic = () => his.currentState.getStateEvents("m.room.topic", "")?.getContent().topic;
    await until("the topic", bob, [sdk.RoomStateEvent.Events], () => topic() === "twisting");
    claim("name and topic change for all", true);
    claim(
        "names need power",
        (await refusal(bob.setRoomName(roomId, "Bob's"))) === "403 M_FORBIDDEN",
    );

    const { event_id: slip } = await alice.sendTextMessage(roomId, "a slip of the tongue");
    const target = await said(his, bob, "a slip of the tongue");
    await alice.redactEvent(roomId, slip, undefined, { reason: "never mind" });
    await until("the redaction", bob, [sdk.RoomEvent.Redaction, sdk.RoomEvent.Timeline], () => target.isRedacted());
    const fetched = await bob.fetchRoomEvent(roomId, slip);
    claim(
        "what was redacted is gone for good",
        Object.keys(fetched.content).length === 0 && fetched.unsigned?.redacted_because?.content?.reason === "never mind",
        fetched,
    );

    const typing = () => his.getMember(alice.getUserId())?.typing;
    await alice.sendTyping(roomId, true, 30_000);
    await until("typing", bob, [sdk.RoomMemberEvent.Typing], typing);
    await alice.sendTyping(roomId, false, 0);
    await until("no more typing", bob, [sdk.RoomMemberEvent.Typing], () => !typing());
    claim("typing shows and stops showing", true);

    const last = await said(his, bob, "hello yourself");
    await bob.sendReadReceipt(last);
    const readUpTo = () => hers.getEventReadUpTo(bob.getUserId()) === last.getId();
    await until("the receipt", alice, [sdk.RoomEvent.Receipt], readUpTo);
    claim("a receipt reaches the sender", true);
    await bob.setRoomReadMarkers(roomId, last.getId(), last);
    await until("the read marker", bob, [sdk.RoomEvent.AccountData], () => {
        return his.getAccountData("m.fully_read")?.getContent().event_id === last.getId();
    });
    claim("a read marker comes back to its owner", true);

    await inTime("account data", bob.setAccountData("org.example.knots", { bowline: true }));
    claim("account data comes back by sync", bob.getAccountData("org.example.knots").getContent().bowline === true);
    await bob.setRoomTag(roomId, "m.favourite", { order: 0.5 });
    await until("the tag", bob, [sdk.RoomEvent.Tags], () => his.tags["m.favourite"]?.order === 0.5);
    claim("a tag too", true);
    await bob.setPushRuleEnabled("global", "override", ".m.rule.master", true);
    const rules = await bob.getPushRules();
    claim(
        "push rules can be switched",
        rules.global.override.find((rule) => rule.rule_id === ".m.rule.master")?.enabled === true,
        rules.global.override,
    );
}

async function history(alice, bob, roomId) {
    for (let number = 0; number < 30; number += 1) {
        await inTime("sending", (number % 2 ? bob : alice).sendTextMessage(roomId, `line ${number}`));
    }
    const login = await newClient().loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: "alice" },
        password: PASSWORD,
    });
    const fresh = loggedIn(login);
    await start(fresh);
    const room = fresh.getRoom(roomId);
    claim("a new device starts with the last messages", timeline(room).length === 8, bodies(timeline(room)));
    for (let page = 0; room.oldState.paginationToken !== null; page += 1) {
        claim(`page ${page} back`, page < 50 && (await inTime("a page", fresh.scrollback(room, 10))));
    }
    const events = timeline(room);
    const lines = bodies(events).filter((body) => body.startsWith("line "));
    claim(
        "paging back gives every message once, in order",
        JSON.stringify(lines) === JSON.stringify([...Array(30).keys()].map((n) => `line ${n}`)),
        lines,
    );
    claim("and ends at the beginning", events[0].getType() === "m.room.create", events[0].event);

    const middle = events.find((event) => event.getContent().body === "line 15");
    const around = await fresh.getEventTimeline(room.getUnfilteredTimelineSet(), middle.getId());
    claim("a linked event is found in its timeline", bodies(around.getEvents()).includes("line 15"));

    await inTime("logging out", fresh.logout(true));
    const refused = await refusal(loggedIn(login).whoami());
    claim("a logged-out token is unknown", refused === "401 M_UNKNOWN_TOKEN", refused);
}

/** Sends until the server dies, waits for its return and takes stock. */
async function crash(alice, bob, roomId) {
    const [hers, his] = [alice.getRoom(roomId), bob.getRoom(roomId)];
    const acknowledged = new Map();
    let told = false;
    let broken = false;
    const sends = [];
    const pump = async () => {
        for (let number = 0; number < SENDS_MAX && !broken; number += 1) {
            const body = `crash ${number}`;
            const sent = alice.sendTextMessage(roomId, body).then(
                ({ event_id: id }) => {
                    acknowledged.set(body, id);
                    if (acknowledged.size >= ACKNOWLEDGED_BEFORE_KILL && !told) {
                        told = true;
                        tell({ phase: "sending", acknowledged: acknowledged.size });
                    }
                },
                () => {
                    broken = true;
                },
            );
            sends.push(sent);
            // Keep a few in the queue: some acknowledged, one under way, some not yet tried.
            if (number >= 3) await inTime("an answer or a broken connection", sends[number - 3]);
        }
    };
    await pump();
    await inTime("the rest of the queue", Promise.all(sends));
    claim("the server was killed in the middle of sending", broken);
    const unsent = () => hers.getPendingEvents().filter((event) => event.status === sdk.EventStatus.NOT_SENT);
    tell({ phase: "broken", acknowledged: acknowledged.size, unacknowledged: unsent().length });

    const restarted = await new Promise((resolve) => createInterface({ input: process.stdin }).once("line", resolve));
    currentBase = JSON.parse(restarted).base_url;
    serverRun = 2;
    const pending = unsent();
    claim("what was not acknowledged is known", pending.length > 0, pending.length);
    for (const event of pending) {
        const { event_id: id } = await inTime("sending again", alice.resendEvent(event, hers));
        acknowledged.set(event.getContent().body, id);
    }

    for (const [client, room] of [[alice, hers], [bob, his]]) {
        const tokens = new Set(client.syncsSeen.filter((sync) => sync.serverRun === 1).map((sync) => sync.since));
        client.retryImmediately();
        const last = [...acknowledged.values()].at(-1);
        await until("the last message", client, [sdk.RoomEvent.Timeline], () => room.findEventById(last));
        const first = client.syncsSeen.find((sync) => sync.serverRun === 2 && sync.ok);
        claim("sync goes on from the old token", first.since && tokens.has(first.since), first);

        const said = [];
        let from = client.store.getSyncToken();
        for (let page = 0; page < 200; page += 1) {
            const answer = await inTime("a page", client.createMessagesRequest(roomId, from, 50, sdk.Direction.Backward));
            said.push(...answer.chunk.filter((event) => event.content.body?.startsWith("crash ")));
            if (!answer.end || !answer.chunk.length) break;
            from = answer.end;
        }
        const found = new Map(said.map((event) => [event.content.body, event.event_id]));
        claim("nothing is doubled", found.size === said.length, said.length, found.size);
        claim(
            "no acknowledged message is lost",
            [...acknowledged].every(([body, id]) => found.get(body) === id) && found.size === acknowledged.size,
            [...acknowledged],
            [...found],
        );
        const shown = bodies(timeline(room)).filter((body) => body.startsWith("crash "));
        claim("the screen shows none twice", new Set(shown).size === shown.length, shown);
    }
    await inTime("sending", bob.sendTextMessage(roomId, "still here"));
    await until("the talk going on", alice, [sdk.RoomEvent.Timeline], () => bodies(timeline(hers)).includes("still here"));
    claim("and the talk goes on", true);
}

async function main() {
    const [alice, bob] = [await register("alice"), await register("bob")];
    claim("a name is given once", (await refusal(newClient().registerRequest({ username: "alice", password: PASSWORD, auth: { type: "m.login.dummy" } }))) === "400 M_USER_IN_USE");
    await start(alice);
    await start(bob);
    const roomId = await meet(alice, bob);
    await chat(alice, bob, roomId);
    await history(alice, bob, roomId);
    await crash(alice, bob, roomId);
    await inTime("leaving", bob.leave(roomId));
    await until("the leave", alice, [sdk.RoomMemberEvent.Membership], () => {
        return alice.getRoom(roomId).getMember(bob.getUserId())?.membership === "leave";
    });
    claim("who leaves is seen to leave", true);
    await inTime("logging out", alice.logout(true));
    await inTime("logging out", bob.logout(true));
}

process.on("unhandledRejection", () => {}); // each call that matters is awaited above
try {
    await main();
    tell({ phase: "done", claims });
    process.exitCode = 0;
} catch (error) {
    process.stderr.write(`${error.stack}\n`);
    tell({ phase: "failed", error: String(error) });
    process.exitCode = 1;
}
clients.forEach((client) => client.stopClient());
process.stdout.write("", () => process.exit());
