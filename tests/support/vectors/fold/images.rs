//! Events of the Images API.

use super::{Data, Folded, name_matches};
use crate::vectors::sse::Event;
use crate::vectors::value::text;
use serde_json::Value;

pub(super) fn fold(events: &[Event]) -> Folded {
    let mut doc = Folded::default();
    for event in events {
        let Data::Object(data) = doc.read(event, "images.shape") else { continue };
        doc.events.push(data["type"].clone());
        let matches = name_matches(event, &data["type"]);
        doc.rules.need(matches, "images.event_matches", "event name differs from type");
        if text(&data["type"]).ends_with(".completed") {
            doc.usage = data["usage"].clone();
            if let Value::Object(members) = data {
                doc.last = members;
            }
        }
    }
    doc
}

#[cfg(test)]
mod tests {
    use super::super::testing::stream;
    use super::*;
    use crate::vectors::rules::testing::every_rule_breaks;
    use serde_json::json;

    #[test]
    fn the_last_image_is_final() {
        let events = json!([{"type": "image_generation.partial_image"}, {"type": "image_generation.completed", "b64_json": "x", "usage": {"n": 1}}]);
        let (doc, broken) = fold(&stream(&events, true)).into_document();
        assert_eq!(broken, [""; 0]);
        assert_eq!((&doc["final"]["b64_json"], &doc["usage"]["n"]), (&json!("x"), &json!(1)));
    }

    #[test]
    fn every_rule_breaks_once() {
        let misnamed = [Event { name: Some("a".to_owned()), data: "{\"type\":\"b\"}".to_owned() }];
        let bare = [Event { name: None, data: "1".to_owned() }];
        every_rule_breaks(
            include_str!("images.rs"),
            &[
                ("images.event_matches", fold(&misnamed).into_document().1),
                ("images.shape", fold(&bare).into_document().1),
            ],
        );
    }
}
