//! From labelled texts to a classifier without a configuration: which trainings are tried, and what is known of them.

pub mod budget;
pub mod candidates;
pub mod languages;
pub mod ngrams;
pub mod plan;
pub mod record;
pub mod search;
pub mod start;
mod vocabulary;
pub mod words;
