//! Models that embed: the engine's scores as a vector of length 1, and what such a model refuses.

use kinglet::Error;
use kinglet::backend::Backend;
use kinglet::bundle::{Buffer, BundleFile, ReadBundle};
use kinglet::engine::native::DEFAULT_CHUNK;
use kinglet::model::Model;
use kinglet::spec::{Config, Mixer, Norm, Pooling, Task};
use kinglet::stream::Stream;
use kinglet::vector::normalize;

use crate::fixture::{self, bits, config, kinds, with_engine};

const TEXTS: [&str; 4] = ["", "wake me at seven", "Straße 字 \u{1F388}", "the the at wake seven me"];

fn bundle(mixer: Mixer, norm: Norm, pooling: Pooling, task: Task) -> Buffer {
    let config = Config { task, ..config(mixer, norm, pooling, 12, &[[3, 1, 1], [4, 1, 1]]) };
    fixture::Model::random(config, 8).bundle()
}

fn model(bundle: &Buffer) -> Model {
    Model::new(BundleFile::from_bytes(bundle.as_slice()), true).unwrap()
}

fn embedder() -> Model {
    model(&bundle(Mixer::Light, Norm::PreRms, Pooling::Mean, Task::Embed))
}

fn classifier() -> Model {
    model(&bundle(Mixer::Light, Norm::PreRms, Pooling::Mean, Task::Classify))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[test]
fn a_vector_is_that_of_the_scores_of_the_same_weights_on_every_backend() {
    for (mixer, norm, pooling) in kinds() {
        let [embeds, classifies] = [Task::Embed, Task::Classify].map(|task| bundle(mixer, norm, pooling, task));
        for backend in Backend::all() {
            let model = model(&embeds).with_backend(backend);
            let mut embedder = model.embedder().unwrap();
            assert_eq!(embedder.dimension(), 5);
            for text in TEXTS {
                let mut want = [0.0; 5];
                with_engine(&classifies, Backend::SCALAR, DEFAULT_CHUNK, |engine| {
                    let mut stream = Stream::new(engine);
                    stream.push(text).unwrap();
                    stream.finish(&mut want).unwrap();
                });
                let length = dot(&want, &want).sqrt();
                let got = model.embed(text).unwrap();
                for (&got, &want) in got.iter().zip(&want) {
                    assert!((f64::from(got) - f64::from(want) / length).abs() < 1e-6, "{text}: {got} {want}");
                }
                normalize(&mut want).unwrap();
                assert_eq!(bits(&got), bits(&want), "{text} on {}", backend.name());
                assert_eq!(bits(embedder.embed(text).unwrap()), bits(&want));
                assert_eq!((embedder.tokens() > 0, embedder.truncated()), (true, false));
                assert!((dot(&got, &got) - 1.0).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn a_long_text_is_cut_where_it_says_and_embedded_as_its_beginning() {
    let model = embedder();
    let mut embedder = model.embedder().unwrap();
    let text = "wake me at seven ".repeat(2_000);
    let whole = embedder.embed(&text).unwrap().to_vec();
    assert!(embedder.tokens() > 8_000 && !embedder.truncated());
    assert_eq!(whole, model.embed(&text).unwrap());
    embedder.truncate = Some(5);
    let cut = embedder.embed(&text).unwrap().to_vec();
    assert!(embedder.truncated() && embedder.tokens() == 5);
    assert_eq!(cut, model.embed("wake me at seven").unwrap());
    assert_ne!(cut, whole);
}

#[test]
fn threads_share_a_model_that_embeds() {
    let model = embedder();
    let want = TEXTS.map(|text| model.embed(text).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(TEXTS.map(|text| model.embed(text).unwrap()), want));
        }
    });
}

#[test]
fn labels_are_refused_by_a_model_that_embeds_and_vectors_by_one_that_classifies() {
    let embeds = embedder();
    assert!(embeds.labels().is_empty() && embeds.bundle().labels().is_empty() && !embeds.decision().is_calibrated());
    let error = embeds.classifier().err().unwrap();
    assert_eq!(error, Error::Embeds { dimension: 5 });
    assert!(
        error.to_string().starts_with("this model embeds text into vectors of 5 values; it has no labels"),
        "{error}"
    );

    let classifies = classifier();
    assert_eq!(classifies.labels().len(), 5);
    let error = classifies.embed("wake me").unwrap_err();
    assert_eq!(error, Error::Classifies { labels: 5 });
    assert!(error.to_string().contains("classifies text into 5 labels; it has no sentence vectors"), "{error}");
    assert_eq!(classifies.embedder().err(), Some(error));
}
