//! Values that a user, a request or a model gives for some of the parameters.

use super::params::{Field, PARAMETERS, Parameter, SamplingParams, Scalar};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Values for some of the [`PARAMETERS`], by name. Deserializes from a map, whose other keys are ignored;
/// null is no value.
#[derive(Clone, Debug, PartialEq)]
pub struct Overrides<I = usize>(pub BTreeMap<&'static str, Scalar<I>>);

impl<I> Default for Overrides<I> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<I: Copy> Overrides<I> {
    /// The parameters that have a value, in the order of [`PARAMETERS`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static Parameter, Scalar<I>)> {
        PARAMETERS.iter().filter_map(|parameter| Some((parameter, *self.0.get(parameter.name)?)))
    }
}

impl Overrides {
    /// Sets these parameters in `params`.
    pub fn apply(&self, params: &mut SamplingParams) {
        self.iter().for_each(|(parameter, value)| parameter.set(params, value));
    }
}

impl<'de, I: Deserialize<'de>> Deserialize<'de> for Overrides<I> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

struct MapVisitor<I>(PhantomData<I>);

impl<'de, I: Deserialize<'de>> Visitor<'de> for MapVisitor<I> {
    type Value = Overrides<I>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut overrides = Overrides::default();
        while let Some(key) = map.next_key::<String>()? {
            let Some(parameter) = PARAMETERS.iter().find(|parameter| parameter.name == key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = match parameter.field {
                Field::Number(..) => map.next_value::<Option<f32>>()?.map(Scalar::Number),
                Field::Count(..) => map.next_value::<Option<I>>()?.map(Scalar::Count),
            };
            overrides.0.extend(value.map(|value| (parameter.name, value)));
        }
        Ok(overrides)
    }
}
