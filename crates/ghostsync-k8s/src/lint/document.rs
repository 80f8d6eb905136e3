//! Text in, objects out: the documents of a YAML stream, with lists of objects taken apart.
//!
//! Anchors, aliases and merge keys are resolved, and numbers and booleans are read as Kubernetes reads them. A document
//! that holds nothing is no object; one that is no Kubernetes object is an error, since a template that was never
//! rendered would otherwise pass as clean.

use serde_json::Value;

/// One Kubernetes object, and where it was read.
#[derive(Debug)]
pub(crate) struct Object {
    /// The file as it was named on the command line.
    pub(crate) file: String,
    /// Which document of the file; the first is 1, and empty ones do not count.
    pub(crate) document: usize,
    /// Which item of a list object, the first is 0.
    pub(crate) item: Option<usize>,
    /// What it says.
    pub(crate) value: Value,
}

impl Object {
    pub(crate) fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// Why a file could not be read as objects.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DocumentError {
    #[error("cannot parse {file} as YAML:\n{problem}")]
    Syntax { file: String, problem: String },
    #[error("document {document} of {file} is no Kubernetes object: it lacks {lacks}")]
    NoObject { file: String, document: usize, lacks: &'static str },
}

/// The objects of one file.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Object>, DocumentError> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| DocumentError::Syntax { file: file.to_owned(), problem: error.to_string() })?;
    let mut objects = Vec::new();
    for (position, value) in documents.into_iter().enumerate() {
        let document = position + 1;
        if value.is_null() {
            continue;
        }
        for lacks in ["apiVersion", "kind"] {
            if !value[lacks].is_string() {
                return Err(DocumentError::NoObject { file: file.to_owned(), document, lacks });
            }
        }
        take_apart(&mut objects, file, document, value);
    }
    Ok(objects)
}

fn take_apart(objects: &mut Vec<Object>, file: &str, document: usize, mut value: Value) {
    let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => {
            for (item, value) in items.into_iter().enumerate() {
                objects.push(Object { file: file.to_owned(), document, item: Some(item), value });
            }
        }
        _ => objects.push(Object { file: file.to_owned(), document, item: None, value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_taken_apart_and_empty_documents_are_none() {
        let text = "---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod}\n- {kind: Service}\n\
                    ---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
        let objects = parse("f", text).unwrap();
        let found: Vec<_> = objects.iter().map(|object| (object.item, object.kind())).collect();
        assert_eq!(found, [(Some(0), "Pod"), (Some(1), "Service"), (None, "Secret")]);
        assert_eq!(objects[2].name(), "s");
    }

    #[test]
    fn anchors_and_merge_keys_are_resolved() {
        let text = "apiVersion: v1\nkind: Pod\na: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n";
        let value = &parse("f", text).unwrap()[0].value;
        assert_eq!(value["b"]["x"], 1);
        assert_eq!(value["c"], serde_json::json!({"x": 1, "y": 2}));
    }

    #[test]
    fn a_chart_that_was_not_rendered_is_an_error_and_not_clean() {
        let error = parse("chart.yaml", "apiVersion: v1\nkind: Pod\nspec: {{ .Values.spec }}\n").unwrap_err();
        assert!(error.to_string().starts_with("cannot parse chart.yaml as YAML"), "{error}");
    }

    #[test]
    fn what_is_no_object_is_an_error_and_not_clean() {
        let error = parse("values.yaml", "replicas: 1\n").unwrap_err();
        assert_eq!(error.to_string(), "document 1 of values.yaml is no Kubernetes object: it lacks apiVersion");
    }

    #[test]
    fn an_alias_that_grows_without_bound_is_refused() {
        let mut text = String::from("apiVersion: v1\nkind: Pod\na0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let list = vec![format!("*a{}", level - 1); 9].join(",");
            text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        assert!(parse("f", &text).is_err());
    }
}
