//! Teaches a tiny GPT-2 the built-in grammar of product reviews within seconds, and has it write some:
//! `cargo run --release -p flipside-text --example generate`

use flipside_core::Seed;
use flipside_core::settings::{OptimiserSettings, SupervisedSettings, TextShape};
use flipside_text::generate::{Sampling, generate};
use flipside_text::model::Precision;
use flipside_text::tokenizer::Tokenizer;
use flipside_text::{Bundle, Example, Supervised, grammar};

const STEPS: u64 = 150;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seed = Seed(0);
    let mut stream = seed.stream("documents");
    let reviews: Vec<_> = (0..600).map(|_| grammar::review(&mut stream)).collect();
    let documents: Vec<String> =
        reviews.iter().map(|review| format!("{}{}", review.prompt, review.completion)).collect();

    // A byte-level BPE and a model of random weights.
    let tokenizer = Tokenizer::train(documents.iter().map(String::as_str), 512)?;
    let shape = TextShape { vocabulary: 512, context: 128, width: 64, layers: 2, heads: 2 };
    let bundle = Bundle::random(&shape, tokenizer, Precision::F32, seed);
    let stop = bundle.stop();
    let Bundle { model, tokenizer, .. } = bundle;
    println!("{} parameters, {} tokens", model.parameters(), tokenizer.vocabulary());

    let example = |review: &grammar::Review| -> Result<Example, Box<dyn std::error::Error>> {
        let mut completion = tokenizer.encode(&review.completion, false)?;
        completion.extend(tokenizer.eos());
        Ok(Example { prompt: tokenizer.encode(&review.prompt, false)?, completion })
    };
    let examples: Vec<Example> = reviews.iter().map(example).collect::<Result<_, _>>()?;
    let optimiser = OptimiserSettings { learning_rate: 2e-3, ..OptimiserSettings::default() };
    let settings = SupervisedSettings { batch_size: 16, optimiser, ..SupervisedSettings::default() };
    let mut training = Supervised::new(model, &settings, seed)?;
    training.plan(STEPS);
    for step in 1..=STEPS {
        let stats = training.step(&examples, &mut |_| false)?;
        if step % 50 == 0 {
            println!("step {step}: {:.2} nats a token", stats.loss);
        }
    }

    let model = training.into_model();
    for prompt in ["Review of the blue kettle:", "Review of the old bicycle:"] {
        let tokens = tokenizer.encode(prompt, false)?;
        let sampling = Sampling { temperature: 0.7, stop: stop.clone(), seed: 1, ..Sampling::default() };
        for completion in generate(&model, &[&tokens[..]], &sampling, true, &mut |_, _| true) {
            let text = tokenizer.decode(&completion.tokens, true)?;
            println!("{prompt}{text}\n    gold score {:.2}", grammar::score(prompt, &text));
        }
    }
    Ok(())
}
