//! Asks Kafka for the ids of topics.
//!
//! A topic that is deleted and created again keeps its name and loses its offsets; only its id tells. rdkafka has no
//! safe call for it, so this file speaks to librdkafka itself: one request, its own queue, one answer, all freed here.
#![allow(unsafe_code, reason = "DescribeTopics is reachable only through librdkafka's C interface")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::types::{RDKafka, RDKafkaErrorCode};

/// Ids by topic name; a topic that does not exist is absent.
pub(crate) type TopicIds = BTreeMap<String, String>;

/// Asks for the ids of topics, through a client that must outlive the call. Blocks up to `deadline`.
///
/// # Errors
/// When the question gets no whole answer. That a topic does not exist is an answer.
pub(crate) fn describe(client: *mut RDKafka, topics: &[&str], deadline: Duration) -> Result<TopicIds, String> {
    let names: Vec<CString> =
        topics.iter().map(|name| CString::new(*name)).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let timeout_ms = i32::try_from(deadline.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `client` is a live handle, the names live until the end of this function, and librdkafka copies them.
    // Queue, options, collection and event are each destroyed once, by their owner below.
    unsafe {
        let queue = Owned::new(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy)?;
        let options =
            native::rd_kafka_AdminOptions_new(client, native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let options = Owned::new(options, native::rd_kafka_AdminOptions_destroy)?;
        let mut text = [0 as c_char; 256];
        native::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, text.as_mut_ptr(), text.len());
        let collection = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let collection = Owned::new(collection, native::rd_kafka_TopicCollection_destroy)?;
        native::rd_kafka_DescribeTopics(client, collection.0, options.0, queue.0);
        let event = native::rd_kafka_queue_poll(queue.0, timeout_ms.saturating_add(1000));
        if event.is_null() {
            return Err(format!("no answer to DescribeTopics within {deadline:?}"));
        }
        let event = Owned::new(event, native::rd_kafka_event_destroy)?;
        read(event.0)
    }
}

/// Reads the answer.
///
/// # Safety
/// `event` must be a live event.
unsafe fn read(event: *mut native::rd_kafka_event_t) -> Result<TopicIds, String> {
    // SAFETY: all pointers come from the event and are only used while it lives; texts are copied.
    unsafe {
        if native::rd_kafka_event_error(event) != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(format!("DescribeTopics: {}", copy(native::rd_kafka_event_error_string(event))));
        }
        let result = native::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err("DescribeTopics got an answer of another kind".to_owned());
        }
        let mut count = 0;
        let topics = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let mut ids = TopicIds::new();
        for index in 0..count {
            let topic = *topics.add(index);
            let name = copy(native::rd_kafka_TopicDescription_name(topic));
            let error = native::rd_kafka_TopicDescription_error(topic);
            match RDKafkaErrorCode::from(native::rd_kafka_error_code(error)) {
                RDKafkaErrorCode::NoError => {
                    let id = native::rd_kafka_TopicDescription_topic_id(topic);
                    // In the letters that Kafka's own tools print: an id with a slash would blur the app id.
                    let text = copy(native::rd_kafka_Uuid_base64str(id)).replace('+', "-").replace('/', "_");
                    ids.insert(name, text);
                }
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopicId => {}
                code => return Err(format!("DescribeTopics: topic {name}: {code}")),
            }
        }
        Ok(ids)
    }
}

/// Something of librdkafka's that is destroyed when this goes out of scope.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Owned<T>, String> {
        if pointer.is_null() {
            return Err("librdkafka gave nothing: out of memory".to_owned());
        }
        Ok(Owned(pointer, destroy))
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `new` took a pointer that nobody else destroys, with the function that is made for it.
        unsafe { (self.1)(self.0) }
    }
}

/// A copy of a text of librdkafka's.
///
/// # Safety
/// `text` must be null or end with a zero byte.
unsafe fn copy(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
