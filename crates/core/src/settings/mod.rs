//! Settings of learning. Each concern has one struct with documented defaults, which is read from and written to TOML
//! and JSON.
//!
//! The command line fills these structs. No code below it sees an option.

mod ppo;
mod reward_model;
mod teacher;
mod text;
mod text_estimator;
mod text_offline;
mod text_online;
mod text_run;

pub use ppo::PpoSettings;
pub use reward_model::{
    ExploreSettings, LabelSettings, MonitorSettings, PairChoice, RewardModelKind, RewardModelSettings,
};
pub use teacher::{TeacherKind, TeacherNoise};
pub use text::{
    KlEstimator, KlSettings, OptimiserSettings, RewardNormalisation, SupervisedSettings, TextLabelSettings,
    TextPpoSettings, TextRewardSettings,
};
pub use text_estimator::{KlPlace, TextAdvantage, TextAverage, TextPreset, TextRatio};
pub use text_offline::{IlqlSettings, PreferenceLoss, TextPreferenceSettings};
pub use text_online::TextOnlineDpoSettings;
pub use text_run::{LoraSettings, TextPrecision, TextRun, TextShape, TextStage};

use schemars::JsonSchema;

/// Earlier names of the fields of a settings table, each with its present name. A renamed field accepts its old name by
/// `#[serde(alias = "old")]` and lists it by `#[schemars(extend("aliases" = ["old"]))]`.
pub fn earlier_names<T: JsonSchema>() -> Vec<(String, String)> {
    let schema = schemars::SchemaGenerator::default().into_root_schema_for::<T>();
    let fields = schema.get("properties").and_then(|fields| fields.as_object()).into_iter().flatten();
    let mut names = Vec::new();
    for (name, field) in fields {
        let earlier = field.get("aliases").and_then(|earlier| earlier.as_array()).into_iter().flatten();
        names.extend(earlier.filter_map(|earlier| Some((earlier.as_str()?.to_owned(), name.clone()))));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    struct Renamed {
        #[serde(alias = "worlds")]
        #[schemars(extend("aliases" = ["worlds"]))]
        num_envs: usize,
    }

    #[test]
    fn a_renamed_field_lists_its_earlier_name() {
        assert_eq!(earlier_names::<Renamed>(), [("worlds".to_owned(), "num_envs".to_owned())]);
        assert_eq!(toml::from_str::<Renamed>("worlds = 3"), Ok(Renamed { num_envs: 3 }));
    }
}
