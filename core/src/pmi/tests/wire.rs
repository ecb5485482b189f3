//! The decoder alone.

use proptest::prelude::*;

use super::*;

fn decode(chunks: &[&[u8]]) -> (Vec<Message>, Option<WireError>) {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

fn one(line: &str) -> Message {
    let (mut messages, error) = decode(&[line.as_bytes()]);
    assert_eq!((messages.len(), error), (1, None), "{line:?}");
    messages.pop().unwrap()
}

fn field(line: &str, key: &str) -> String {
    String::from_utf8(one(line).fields.get(key).expect("the field").to_vec()).unwrap()
}

#[test]
fn lines_are_read_with_tolerance() {
    assert_eq!(field("  cmd=get   kvsname=m0\t key=k \r\n", "key"), "k");
    assert_eq!(field("cmd=get flag other=1 key=k\n", "key"), "k");
    assert_eq!(field("cmd=get flag other=1 key=k\n", "flag"), "");
    assert_eq!(field("\n\ncmd=get key=k\n", "key"), "k");
    assert_eq!(field("cmd=put kvsname=m0 key=k value=two words = x\n", "value"), "two words = x");
    assert_eq!(field("cmd=put value=two words kvsname=m0 key=k\n", "value"), "two words");
    assert_eq!(field("cmd=put value=two words kvsname=m0 key=k\n", "key"), "k");
    assert_eq!(field("cmd=put kvsname=m0 key=k value=v key=other\n", "value"), "v key=other");
    assert_eq!(field("cmd=publish_name service=s port=a b\n", "port"), "a b");
    assert_eq!(field("cmd=publish_name port=a b service=s\n", "port"), "a b");
    assert_eq!(field("cmd=get key=a\\ b kvsname=m0\n", "key"), "a\\ b");
    assert_eq!(field("cmd=get key=a\\\\ kvsname=m0\n", "kvsname"), "m0");
}

#[test]
fn frames_are_read_with_both_paddings_and_doubled_semicolons() {
    for head in ["    35", "35    ", "000035", "  35  "] {
        let message = one(&format!("{head}cmd=x;a=;b=1;;2;;;;3;c;d=e=f;g=last"));
        assert_eq!(message.dialect, Dialect::V2);
        let get = |key| message.fields.get(key).map(|v| &v[..]);
        assert_eq!(message.command(), b"x");
        assert_eq!(get("a"), Some(&b""[..]));
        assert_eq!(get("b"), Some(&b"1;2;;3"[..]));
        assert_eq!(get("c"), Some(&b""[..]));
        assert_eq!(get("d"), Some(&b"e=f"[..]));
        assert_eq!(get("g"), Some(&b"last"[..]));
    }
}

#[test]
fn a_mix_of_both_comes_out_in_order() {
    let stream = "cmd=init pmi_version=2\n    14cmd=kvs-fence;cmd=get key=k\nmcmd=spawn\nexecname=/a b \nendcmd\n14    cmd=kvs-fence;";
    let (messages, error) = decode(&[stream.as_bytes()]);
    assert_eq!(error, None);
    let names: Vec<&[u8]> = messages.iter().map(Message::command).collect();
    assert_eq!(names, [&b"init"[..], b"kvs-fence", b"get", b"spawn", b"kvs-fence"]);
    assert_eq!(messages[3].fields.get("execname").unwrap(), "/a b ");
}

#[test]
fn an_error_stays_and_nothing_is_kept() {
    let mut decoder = Decoder::new();
    decoder.push(b"garbage");
    let error = decoder.next_message().unwrap_err();
    decoder.push(b"cmd=get key=k\n");
    assert_eq!(decoder.next_message(), Err(error));
}

#[test]
fn fewer_than_six_bytes_decide_nothing() {
    for begin in ["c", "cmd=x", "mcmd=", "    1", " "] {
        assert_eq!(decode(&[begin.as_bytes()]), (vec![], None), "{begin:?}");
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/=;#$-]{1,20}"
}

fn message() -> impl Strategy<Value = String> {
    prop_oneof![
        ("[a-z_]{1,12}", text()).prop_map(|(name, value)| format!("cmd={name} key={value}\n")),
        text().prop_map(|value| format!("cmd=put kvsname=m0 key=k value=a {value}\n")),
        ("[a-z-]{1,12}", text()).prop_map(|(name, v)| framed(&format!("cmd={name};v={};", v.replace(';', ";;")))),
        (text(), text()).prop_map(|(a, b)| format!(
            "mcmd=spawn\nexecname={a}\ntotspawns=2\nspawnssofar=1\nendcmd\nmcmd=spawn\nexecname={b}\ntotspawns=2\nspawnssofar=2\nendcmd\n"
        )),
    ]
}

proptest! {
    #[test]
    fn chunking_changes_nothing(
        messages in proptest::collection::vec(message(), 0..8),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let stream = messages.concat();
        let whole = decode(&[stream.as_bytes()]);
        prop_assert_eq!(whole.0.len(), messages.len());
        prop_assert_eq!(&whole.1, &None);
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(stream.len() + 1)).chain([0, stream.len()]).collect();
        at.sort_unstable();
        let chunks: Vec<&[u8]> = at.windows(2).map(|w| &stream.as_bytes()[w[0]..w[1]]).collect();
        prop_assert_eq!(decode(&chunks), whole);
    }

    #[test]
    fn random_bytes_never_panic(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8)) {
        let chunks: Vec<&[u8]> = chunks.iter().map(|c| &c[..]).collect();
        decode(&chunks);
    }

    #[test]
    fn bytes_that_look_like_messages_never_panic(
        tail in proptest::collection::vec(any::<u8>(), 0..60), head in proptest::sample::select(vec!["cmd=", "mcmd=spawn\n", "    20cmd=", "cmd=put value="])
    ) {
        let mut stream = head.as_bytes().to_vec();
        stream.extend(tail);
        decode(&[&stream]);
    }
}
