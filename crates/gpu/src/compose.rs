//! Composes several WGSL files into one shader with naga_oil: sizes are substituted, and code for absent features is
//! left out.

use naga_oil::compose::{
    ComposableModuleDescriptor, Composer, ComposerError, NagaModuleDescriptor, ShaderDefValue, ShaderLanguage,
};
use std::collections::HashMap;
use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};
use wgpu::naga::{AddressSpace, Module, TypeInner};

/// A WGSL file: its path and its contents.
pub type Source = (&'static str, &'static str);

/// Definitions for the files: `#{NAME}` for a size, `#ifdef NAME` for a feature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definitions(HashMap<String, ShaderDefValue>);

impl Definitions {
    /// Defines a size, a whole number.
    pub fn size(&mut self, name: &str, n: usize) {
        self.0.insert(name.to_owned(), ShaderDefValue::UInt(n as u32));
    }

    /// Defines a feature if `has` is true.
    pub fn feature(&mut self, name: &str, has: bool) {
        if has {
            self.0.insert(name.to_owned(), ShaderDefValue::Bool(true));
        }
    }
}

/// The validated shader of `entry` with the modules that it imports. A module must come after those that it imports
/// itself.
///
/// Panics if the files do not compose. They are compiled into the program, tests compose all of them, and only whole
/// numbers are substituted.
pub fn compose(modules: &[Source], entry: Source, definitions: &Definitions) -> Module {
    let mut composer = Composer::default();
    let made = modules.iter().try_for_each(|(file_path, source)| {
        let module = ComposableModuleDescriptor {
            source,
            file_path,
            language: ShaderLanguage::Wgsl,
            shader_defs: definitions.0.clone(),
            ..ComposableModuleDescriptor::default()
        };
        composer.add_composable_module(module).map(drop).map_err(Box::new)
    });
    let (file_path, source) = entry;
    let shader = made.and_then(|()| {
        let shader_defs = definitions.0.clone();
        let descriptor = NagaModuleDescriptor { source, file_path, shader_defs, ..NagaModuleDescriptor::default() };
        composer.make_naga_module(descriptor).map_err(Box::new)
    });
    shader.unwrap_or_else(|error: Box<ComposerError>| panic!("{}", error.emit_to_string(&composer)))
}

/// The bindings of a bind group that the first entry point of a composed shader uses. Its kernel has exactly these.
pub fn bound(shader: &Module, group: u32) -> Vec<u32> {
    let Ok(info) = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(shader) else { return vec![] };
    let uses = info.get_entry_point(0);
    let globals = shader.global_variables.iter().filter(|(handle, _)| !uses[*handle].is_empty());
    let bindings = globals.filter_map(|(_, global)| global.binding.filter(|binding| binding.group == group));
    bindings.map(|binding| binding.binding).collect()
}

/// The names and offsets of the members of a struct of a composed shader, and the struct's size in bytes. `name` is the
/// name without the module's suffix. None if there is no such struct.
pub fn reflected(shader: &Module, name: &str) -> Option<(Vec<(String, usize)>, usize)> {
    let plain = |name: &str| name.split("X_naga_oil_mod_X").next().unwrap_or_default().to_owned();
    shader.types.iter().find_map(|(_, ty)| match (&ty.name, &ty.inner) {
        (Some(found), TypeInner::Struct { members, span }) if plain(found) == name => {
            let members = members.iter().map(|m| (m.name.clone().unwrap_or_default(), m.offset as usize));
            Some((members.collect(), *span as usize))
        }
        _ => None,
    })
}

/// Bytes of workgroup memory of a composed shader.
pub fn shared(shader: &Module) -> u64 {
    let of_workgroups = shader.global_variables.iter().filter(|(_, global)| global.space == AddressSpace::WorkGroup);
    let sizes = of_workgroups.map(|(_, global)| shader.types[global.ty].inner.size(shader.to_ctx()));
    // Drivers align each variable to 16 bytes.
    sizes.map(|size| u64::from(size.next_multiple_of(16))).sum()
}
