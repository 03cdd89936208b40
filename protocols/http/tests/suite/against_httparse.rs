//! Our reading of heads against httparse's, over thousands of nearly right ones: what we accept it reads
//! the same way, and what we refuse and it accepts is refused for a reason that it does not look for.

use ropewalk_http::{Limits, MessageError, RequestEvent, ServerCodec};

use crate::mutation::{Dice, SEEDS};

/// Method, target, minor version, and the fields.
type Read = (String, String, u8, Vec<(String, Vec<u8>)>);

fn ours(bytes: &[u8]) -> Result<Option<Read>, MessageError> {
    let mut codec = ServerCodec::new(&Limits::default());
    match codec.next_event(&mut &*bytes)? {
        Some(RequestEvent::Head(head)) => Ok(Some((
            head.method().to_string(),
            head.target().to_owned(),
            head.minor_version(),
            head.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
        ))),
        _ => Ok(None),
    }
}

fn theirs(bytes: &[u8]) -> Result<Option<Read>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(bytes)?.is_partial() {
        return Ok(None);
    }
    Ok(Some((
        request.method.unwrap().to_owned(),
        request.path.unwrap().to_owned(),
        request.version.unwrap(),
        request.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect(),
    )))
}

#[test]
fn heads_are_read_as_httparse_reads_them() {
    let (mut agreed, mut refused) = (0, 0);
    for case in 0..20_000 {
        let mut dice = Dice(0x5851_f42d_4c95_7f2d ^ case);
        let mut bytes = SEEDS[dice.below(SEEDS.len())].as_bytes().to_vec();
        for _ in 0..dice.below(4) {
            dice.mutate(&mut bytes);
        }
        let text = bytes.escape_ascii().to_string();
        match (ours(&bytes), theirs(&bytes)) {
            (Ok(Some(ours)), theirs) => {
                assert_eq!(theirs, Ok(Some(ours)), "{text}");
                agreed += 1;
            }
            (Ok(None), theirs) => {
                // A value that is bad before its end has come is refused once it has.
                assert!(!matches!(theirs, Ok(Some(_))), "we wait for more of {text}");
            }
            (Err(error), Ok(Some(_))) => {
                let is_ours_to_say = !matches!(
                    error,
                    MessageError::RequestLineMalformed | MessageError::HeaderMalformed
                );
                assert!(is_ours_to_say, "{error} refuses {text}");
                refused += 1;
            }
            (Err(_), _) => {}
        }
    }
    assert!(agreed > 5_000 && refused > 500, "agreed {agreed}, refused {refused}");
}
