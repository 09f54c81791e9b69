//! Which files of a repository an NLI cross-encoder needs.
//!
//! Pure: names in, names out. It does not know where the names come from, nor what stands in the files.

/// The form of the weights that are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// `onnx/model.onnx` or `model.onnx`, with its external data files.
    Onnx,
    /// `model.safetensors`.
    Safetensors,
    /// None: configuration and tokenizer alone, to see what the model is.
    Companions,
}

const REQUIRED: [&str; 2] = ["config.json", "tokenizer.json"];
const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

impl Weights {
    /// Where the weights may lie, the preferred place first.
    fn places(self) -> &'static [&'static str] {
        match self {
            Self::Onnx => &["onnx/model.onnx", "model.onnx"],
            Self::Safetensors => &["model.safetensors"],
            Self::Companions => &[],
        }
    }
}

/// The files to take out of `present`; the weights come last, behind their companions, so that whoever finds
/// them in a half-written folder finds all the rest too.
///
/// # Errors
/// The description of the first needed file that is not there.
pub fn select(present: &[String], weights: Weights) -> Result<Vec<String>, String> {
    let has = |wanted: &str| present.iter().any(|name| name == wanted);
    for wanted in REQUIRED {
        if !has(wanted) {
            return Err(wanted.to_owned());
        }
    }
    let places = weights.places();
    let optional = OPTIONAL.into_iter().filter(|name| has(name)).map(str::to_owned);
    let required = REQUIRED.into_iter().map(str::to_owned);
    if places.is_empty() {
        return Ok(optional.chain(required).collect());
    }
    let main = places.iter().copied().find(|place| has(place)).ok_or_else(|| places.join(" or "))?;

    let companions = present.iter().filter(|name| is_companion(name, main)).cloned();
    Ok(optional.chain(companions).chain(required).chain([main.to_owned()]).collect())
}

/// Whether `name` is external data of the ONNX file `main`: `model.onnx.data`, `model.onnx_data`, `model.onnx_data_1`.
fn is_companion(name: &str, main: &str) -> bool {
    main.ends_with(".onnx")
        && name.strip_prefix(main).is_some_and(|rest| rest.starts_with(".data") || rest.starts_with("_data"))
}

/// Whether `name` may be joined to a folder without leaving it.
pub fn is_safe_name(name: &str) -> bool {
    !name.bytes().any(|b| b < b' ' || b == 0x7f || b == b'\\')
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_onnx_folder_is_preferred_and_its_data_comes_along() {
        let repo = names(&[
            "README.md",
            "model.onnx",
            "onnx/model.onnx",
            "onnx/model.onnx_data",
            "onnx/model.onnx_data_1",
            "onnx/model_quantized.onnx",
            "model.safetensors",
            "config.json",
            "tokenizer.json",
            "added_tokens.json",
        ]);
        let taken = select(&repo, Weights::Onnx).unwrap();
        let expected = [
            "added_tokens.json",
            "onnx/model.onnx_data",
            "onnx/model.onnx_data_1",
            "config.json",
            "tokenizer.json",
            "onnx/model.onnx",
        ];
        assert_eq!(taken, expected);
        assert_eq!(select(&repo, Weights::Companions).unwrap(), ["added_tokens.json", "config.json", "tokenizer.json"]);
        assert_eq!(select(&repo, Weights::Safetensors).unwrap().last().unwrap(), "model.safetensors");
    }

    #[test]
    fn the_first_missing_file_is_named() {
        for (repo, missing) in [
            (names(&["tokenizer.json", "model.onnx"]), "config.json"),
            (names(&["config.json", "model.onnx"]), "tokenizer.json"),
            (names(&["config.json", "tokenizer.json", "pytorch_model.bin"]), "onnx/model.onnx or model.onnx"),
        ] {
            assert_eq!(select(&repo, Weights::Onnx).unwrap_err(), missing);
        }
    }

    #[test]
    fn names_that_leave_the_folder_are_unsafe() {
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\\..\\b", "a\0b", "a/"] {
            assert!(!is_safe_name(bad), "{bad:?}");
        }
        assert!(is_safe_name("onnx/model.onnx_data"));
    }
}
