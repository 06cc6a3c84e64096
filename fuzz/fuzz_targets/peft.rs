//! An adapter as PEFT saves it: the text of `adapter_config.json`, a zero byte, and `adapter_model.safetensors`.

#![no_main]

#[path = "../../src/store/arrays_file.rs"]
#[allow(dead_code)]
mod arrays_file;

use flipside_core::Seed;
use flipside_fuzz::{checked, text_and_file};
use flipside_text::config::ModelConfig;
use flipside_text::model::{Precision, Transformer};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use tch::Device;

thread_local! {
    static MODEL: RefCell<Transformer> = RefCell::new({
        let config = ModelConfig::gpt2(16, 8, 8, 1, 2);
        Transformer::random(&config, Precision::F32, Device::Cpu, &mut Seed(0).stream("model"))
    });
}

fuzz_target!(|data: &[u8]| {
    let Some((config, file)) = text_and_file(data) else { return };
    let arrays = checked(arrays_file::decode_plain(file)).map(|(_, arrays)| arrays).unwrap_or_default();
    MODEL.with_borrow_mut(|model| {
        if checked(model.attach_peft(config, &arrays)).is_some() {
            let (config, arrays) = model.to_peft(None, None).expect("an adapter is on");
            model.attach_peft(&config, &arrays).expect("what was written");
        }
    });
});
