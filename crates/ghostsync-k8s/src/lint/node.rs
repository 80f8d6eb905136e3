//! A place in an object: what stands there, if anything does, and how to change it.

use std::fmt;

use serde_json::{Map, Value, json};

use super::document::Object;

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    /// Behind the last element of a list.
    End,
}

/// The way from an object's root to a place in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<Step>);

impl Path {
    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    pub(crate) fn parent(&self) -> Self {
        Self(self.0.split_last().map_or_else(Vec::new, |(_, rest)| rest.to_vec()))
    }

    /// As a JSON pointer (RFC 6901).
    pub(crate) fn pointer(&self) -> String {
        let mut text = String::new();
        for step in &self.0 {
            text.push('/');
            match step {
                Step::Key(key) => text.push_str(&key.replace('~', "~0").replace('/', "~1")),
                Step::Index(index) => text.push_str(&index.to_string()),
                Step::End => text.push('-'),
            }
        }
        text
    }
}

/// As people write it: `spec.template.spec.containers[1].image`.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::End => write!(f, "[]")?,
            }
        }
        Ok(())
    }
}

/// One operation of a JSON patch (RFC 6902), which `kubectl patch --type=json` and kustomize both take.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Op(Value);

impl Op {
    pub(crate) fn value(&self) -> &Value {
        &self.0
    }

    /// Fails the patch where something else stands.
    pub(crate) fn test(at: &Node<'_>) -> Self {
        Self(json!({"op": "test", "path": at.path.pointer(), "value": at.value}))
    }

    pub(crate) fn remove(at: &Node<'_>) -> Self {
        Self(json!({"op": "remove", "path": at.path.pointer()}))
    }

    pub(crate) fn relocate(from: &Node<'_>, to: &Node<'_>) -> Self {
        Self(json!({"op": "move", "from": from.path.pointer(), "path": to.path.pointer()}))
    }
}

/// A place in an object. It may be empty: then it still knows where it is.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    pub(crate) object: &'a Object,
    pub(crate) value: Option<&'a Value>,
    pub(crate) path: Path,
}

impl<'a> Node<'a> {
    pub(crate) fn root(object: &'a Object) -> Self {
        Self { object, value: Some(&object.value), path: Path::default() }
    }

    pub(crate) fn get(&self, key: &str) -> Self {
        let value = self.value.and_then(|value| value.get(key)).filter(|value| !value.is_null());
        Self { object: self.object, value, path: self.path.with(Step::Key(key.to_owned())) }
    }

    /// Several steps at once.
    pub(crate) fn at(&self, keys: &[&str]) -> Self {
        keys.iter().fold(self.clone(), |node, key| node.get(key))
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        let value = self.value.and_then(|value| value.get(index));
        Self { object: self.object, value, path: self.path.with(Step::Index(index)) }
    }

    /// The elements of a list; none where there is no list.
    pub(crate) fn items(&self) -> Vec<Self> {
        let length = self.value.and_then(Value::as_array).map_or(0, Vec::len);
        (0..length).map(|index| self.index(index)).collect()
    }

    pub(crate) fn exists(&self) -> bool {
        self.value.is_some()
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        self.value.and_then(Value::as_str)
    }

    pub(crate) fn number(&self) -> Option<u64> {
        self.value.and_then(Value::as_u64)
    }

    pub(crate) fn is(&self, expected: bool) -> bool {
        self.value.and_then(Value::as_bool) == Some(expected)
    }

    /// The texts of a list, such as `args`.
    pub(crate) fn words(&self) -> Vec<&'a str> {
        let words = self.value.and_then(Value::as_array).into_iter().flatten();
        words.filter_map(Value::as_str).collect()
    }

    /// Makes `value` stand here, with the objects that lead here where they are missing, or no objects.
    pub(crate) fn put(&self, value: Value) -> Op {
        let mut parent = &self.object.value;
        for (depth, step) in self.path.0.iter().enumerate() {
            if !matches!(
                (step, parent),
                (Step::Key(_), Value::Object(_)) | (Step::Index(_) | Step::End, Value::Array(_))
            ) {
                let (lead, rest) = self.path.0.split_at(depth);
                let pointer = Path(lead.to_vec()).pointer();
                return Op(json!({"op": "replace", "path": pointer, "value": wrap(rest, value)}));
            }
            let child = match step {
                Step::Key(key) => parent.get(key).filter(|child| !child.is_null()),
                Step::Index(index) => parent.get(index),
                Step::End => None,
            };
            let Some(child) = child else {
                let missing = self.path.0.get(depth + 1..).unwrap_or_default();
                let path = Self { path: Path(self.path.0[..=depth].to_vec()), ..self.clone() };
                return Op(json!({"op": "add", "path": path.path.pointer(), "value": wrap(missing, value)}));
            };
            parent = child;
        }
        Op(json!({"op": "replace", "path": self.path.pointer(), "value": value}))
    }

    /// Appends `value` to the list that stands here, or makes one.
    pub(crate) fn push(&self, value: Value) -> Op {
        if !self.value.is_some_and(Value::is_array) {
            return self.put(json!([value]));
        }
        Op(json!({"op": "add", "path": self.path.with(Step::End).pointer(), "value": value}))
    }

    /// Where the node lies in, if that is an object.
    pub(crate) fn parent(&self) -> Self {
        let path = self.path.parent();
        let value = self.object.value.pointer(&path.pointer());
        Self { object: self.object, value, path }
    }

    /// Puts `value` at the front of the list that stands here, or makes one.
    pub(crate) fn push_front(&self, value: Value) -> Op {
        if !self.value.is_some_and(Value::is_array) {
            return self.put(json!([value]));
        }
        Op(json!({"op": "add", "path": self.path.with(Step::Index(0)).pointer(), "value": value}))
    }
}

fn wrap(steps: &[Step], value: Value) -> Value {
    steps.iter().rev().fold(value, |inner, step| match step {
        Step::Key(key) => Value::Object(Map::from_iter([(key.clone(), inner)])),
        Step::Index(_) | Step::End => Value::Array(vec![inner]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Object {
        let value = json!({"kind": "Pod", "spec": {"a/b": {"list": [1, 2]}, "nothing": null}});
        Object { file: "f".to_owned(), document: 1, item: None, value }
    }

    #[test]
    fn a_path_is_written_for_people_and_for_patches() {
        let object = object();
        let node = Node::root(&object).at(&["spec", "a/b", "list"]).index(1);
        assert_eq!(node.path.to_string(), "spec.a/b.list[1]");
        assert_eq!(node.path.pointer(), "/spec/a~1b/list/1");
        assert_eq!(node.number(), Some(2));
    }

    #[test]
    fn putting_a_value_makes_the_objects_that_lead_to_it() {
        let object = object();
        let spec = Node::root(&object).get("spec");
        let expected = json!({"op": "add", "path": "/spec/x", "value": {"y": {"z": 1}}});
        assert_eq!(*spec.at(&["x", "y", "z"]).put(json!(1)).value(), expected);
        // An explicit null is replaced like something that is missing.
        let expected = json!({"op": "add", "path": "/spec/nothing", "value": {"y": 1}});
        assert_eq!(*spec.at(&["nothing", "y"]).put(json!(1)).value(), expected);
        let expected = json!({"op": "replace", "path": "/spec/a~1b", "value": 1});
        assert_eq!(*spec.get("a/b").put(json!(1)).value(), expected);
        // What is no object makes way for one.
        let expected = json!({"op": "replace", "path": "/kind", "value": {"y": 1}});
        assert_eq!(*Node::root(&object).at(&["kind", "y"]).put(json!(1)).value(), expected);
    }

    #[test]
    fn pushing_a_value_makes_the_list_where_there_is_none() {
        let object = object();
        let spec = Node::root(&object).get("spec");
        let expected = json!({"op": "add", "path": "/spec/a~1b/list/-", "value": 3});
        assert_eq!(*spec.at(&["a/b", "list"]).push(json!(3)).value(), expected);
        let expected = json!({"op": "add", "path": "/spec/volumes", "value": [3]});
        assert_eq!(*spec.get("volumes").push(json!(3)).value(), expected);
    }
}
