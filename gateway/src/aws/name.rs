//! How AWS's clients name functions: a name, a partial ARN or a whole one, each with or without a qualifier.

use protocol::{FunctionId, Qualifier};

use crate::error::{AwsKind, Error};

/// A function, and which version or alias of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) id: FunctionId,
    /// A version or an alias; none is the function as it is now.
    pub(crate) qualifier: Option<Qualifier>,
}

impl Named {
    /// Reads what stands in a path: `f`, `123456789012:function:f`, `arn:aws:lambda:eu-central-1:123456789012:function:f`, each with
    /// `:qualifier` or not, and the `Qualifier` of the query. Account and region may be any.
    ///
    /// # Errors
    /// When it is none of them, or the two qualifiers differ.
    pub(crate) fn read(text: &str, of_query: Option<&str>) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split(':').collect();
        let rest = match parts.as_slice() {
            [
                "arn",
                partition,
                "lambda",
                region,
                account,
                "function",
                rest @ ..,
            ] if partition.starts_with("aws") && !region.is_empty() && is_account(account) => rest,
            [account, "function", rest @ ..] if is_account(account) => rest,
            ["function", rest @ ..] => rest,
            rest => rest,
        };
        let (name, own) = match rest {
            [name] => (name, None),
            [name, qualifier] => (name, Some(*qualifier)),
            _ => return Err(invalid("functionName", text, FORMS)),
        };
        let id = name.parse();
        let id = id.map_err(|_| invalid("functionName", text, FORMS))?;
        let of_query = of_query.filter(|text| !text.is_empty());
        let qualifier = match (own, of_query) {
            (Some(own), Some(other)) if own != other => {
                return Err(Error::aws(
                    AwsKind::InvalidParameterValue,
                    "The derived qualifier from the function name does not match the specified qualifier.",
                ));
            }
            (own, other) => own.or(other),
        };
        let qualifier = match qualifier {
            None => None,
            Some(text) => {
                let read = text.parse::<Qualifier>();
                Some(read.map_err(|_| invalid("qualifier", text, QUALIFIERS))?)
            }
        };
        Ok(Self {
            id,
            qualifier: qualifier.filter(|qualifier| *qualifier != Qualifier::Latest),
        })
    }
}

const FORMS: &str = "a function's name, its ARN or ACCOUNT:function:NAME, each with :QUALIFIER or not; a name has only letters, digits, '.', '-' and '_'";

const QUALIFIERS: &str = "$LATEST, a version's number or an alias of letters, digits, '-' and '_', at most 128 characters long";

/// A parameter is not what it has to be.
pub(crate) fn invalid(field: &str, value: &str, expected: &str) -> Error {
    Error::aws(
        AwsKind::Validation,
        format!(
            "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: Member must be {expected}"
        ),
    )
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, query: Option<&str>, expected: Option<(&str, Option<&str>)>) {
        let read = Named::read(text, query).ok();
        let expected = expected.map(|(id, qualifier)| Named {
            id: id.parse().unwrap(),
            qualifier: qualifier.map(|text| text.parse().unwrap()),
        });
        assert_eq!(read, expected, "{text} {query:?}");
    }

    #[test]
    fn every_form_of_a_name_is_read() {
        check("f", None, Some(("f", None)));
        check("f:7", None, Some(("f", Some("7"))));
        check("f", Some("live"), Some(("f", Some("live"))));
        check("f:live", Some("live"), Some(("f", Some("live"))));
        check("f:$LATEST", None, Some(("f", None)));
        check("function:f", None, Some(("f", None)));
        check("123456789012:function:f", None, Some(("f", None)));
        check(
            "123456789012:function:f:live",
            None,
            Some(("f", Some("live"))),
        );
        let arn = "arn:aws:lambda:us-west-2:123456789012:function:my-function";
        check(arn, None, Some(("my-function", None)));
        check(
            &format!("{arn}:3"),
            Some("3"),
            Some(("my-function", Some("3"))),
        );
        check(
            "arn:aws-cn:lambda:cn-north-1:123456789012:function:f",
            None,
            Some(("f", None)),
        );
    }

    #[test]
    fn what_names_no_function_is_refused() {
        for wrong in [
            "",
            "a b",
            "f:",
            "f:a.b",
            "f:1:2",
            "12:function:f",
            "arn:aws:s3:us-west-2:123456789012:function:f",
            "arn:aws:lambda:us-west-2:123456789012:layer:f",
            "arn:aws:lambda:us-west-2:123456789012:function",
        ] {
            check(wrong, None, None);
        }
        check("f:1", Some("2"), None);
        check("f", Some("a/b"), None);
    }
}
