use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use proptest::prelude::*;

use super::*;

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 0x0102;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn reply(name: &str, id: u16) -> Vec<u8> {
    let mut message = Message::from_vec(&question(name)).unwrap();
    message.metadata.id = id;
    message.metadata.message_type = MessageType::Response;
    message.to_vec().unwrap()
}

#[test]
fn only_the_id_is_changed_and_changed_back() {
    let original = question("Example.com.");
    let pending = Pending::new(original.clone(), [0xab, 0xcd]).unwrap();
    assert_eq!(pending.bytes()[..2], [0xab, 0xcd]);
    assert_eq!(pending.bytes()[2..], original[2..]);
    let answer = pending.accept(&reply("Example.com.", 0xabcd)).unwrap();
    assert_eq!(answer, reply("Example.com.", 0x0102));
    // Some servers answer in small letters.
    assert!(pending.accept(&reply("example.com.", 0xabcd)).is_some());
}

#[test]
fn a_reply_to_something_else_is_not_believed() {
    let pending = Pending::new(question("example.com."), [0xab, 0xcd]).unwrap();
    assert!(pending.accept(&reply("example.com.", 0xabce)).is_none());
    assert!(pending.accept(&reply("example.org.", 0xabcd)).is_none());
    assert!(pending.accept(&reply("a.example.com.", 0xabcd)).is_none());
    // A question is no reply.
    assert!(pending.accept(pending.bytes()).is_none());
    // Another type, one bit beside the one that was asked.
    let mut other = reply("example.com.", 0xabcd);
    let kind = other.len() - 3;
    other[kind] ^= 0x20;
    assert!(pending.accept(&other).is_none());
    for length in 0..other.len() {
        assert!(pending.accept(&other[..length]).is_none());
    }
}

#[test]
fn a_server_that_could_not_read_the_question_need_not_repeat_it() {
    let pending = Pending::new(question("example.com."), [1, 2]).unwrap();
    let bare = |code: u8| [1, 2, 0x80, code, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(pending.accept(&bare(1)).is_some());
    assert!(pending.accept(&bare(0)).is_none());
}

#[test]
fn without_a_reply_it_is_said_that_the_server_failed() {
    let pending = Pending::new(question("example.com."), [9, 9]).unwrap();
    let answer = Message::from_vec(&pending.failed()).unwrap();
    assert_eq!(answer.metadata.id, 0x0102);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
    assert_eq!(
        answer.queries,
        Message::from_vec(&question("example.com.")).unwrap().queries
    );
    assert!(is_no_help(&pending.failed()));
}

#[test]
fn names_that_are_not_written_out_are_not_sent_on() {
    let mut pointer = question("example.com.");
    pointer[12] = 0xc0;
    assert_eq!(Pending::new(pointer, [0, 0]), None);
    let mut two = question("example.com.");
    two[5] = 2;
    assert_eq!(Pending::new(two, [0, 0]), None);
}

proptest! {
    #[test]
    fn any_bytes_are_safe(
        question in prop::collection::vec(any::<u8>(), 0..300),
        reply in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Some(pending) = Pending::new(question, [1, 2]) {
            let _ = pending.accept(&reply);
            prop_assert!(pending.failed().len() <= pending.bytes().len());
        }
    }
}
