//! `<asset>`: the meshes and height fields that geoms name.

use super::schema::{Piece, Source};
use super::{Complaint, Files, formats};
use crate::physics::mesh::{HeightField, Mesh, MeshInertia};
use crate::physics::model::unit_quat;
use glam::{DQuat, DVec3};

/// Compiles every mesh and height field of the file, in its order. `files` supplies those that are in files of their
/// own.
pub fn read(source: &Source, files: Files) -> Result<(Vec<Mesh>, Vec<HeightField>), Complaint> {
    let mut meshes: Vec<Mesh> = vec![];
    for piece in &source.meshes {
        let mesh = mesh(source, piece, files)?;
        if meshes.iter().any(|other| other.name == mesh.name) {
            return Err(twice(piece, &mesh.name));
        }
        meshes.push(mesh);
    }
    let mut hfields: Vec<HeightField> = vec![];
    for piece in &source.hfields {
        let hfield = height_field(source, piece, files)?;
        if hfields.iter().any(|other| other.name == hfield.name) {
            return Err(twice(piece, &hfield.name));
        }
        hfields.push(hfield);
    }
    Ok((meshes, hfields))
}

fn twice(piece: &Piece, name: &str) -> Complaint {
    (piece.line, format!("a second <{}> is called \"{name}\"; expected names that differ", piece.tag()))
}

/// The asset's name, or its file's name without folder and ending, as in MuJoCo.
fn name(source: &Source, piece: &Piece) -> Result<String, Complaint> {
    let from_file = || {
        let file = source.text(piece, "file")?.rsplit(['/', '\\']).next()?;
        Some(file.rsplit_once('.').map_or(file, |(stem, _)| stem))
    };
    match source.text(piece, "name").or_else(from_file) {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err((piece.line, format!("<{}> has no name; expected one", piece.tag()))),
    }
}

/// The path of the asset's file below the robot's folder, and its contents.
fn bytes_of(source: &Source, piece: &Piece, files: Files) -> Result<Option<(String, Vec<u8>)>, Complaint> {
    let Some(file) = source.text(piece, "file") else { return Ok(None) };
    // Height fields are in the same folder as meshes, as in MuJoCo.
    let folder = source.compiler("meshdir").or_else(|| source.compiler("assetdir")).unwrap_or_default();
    let path = match folder.trim_end_matches('/') {
        "" => file.to_owned(),
        folder => format!("{folder}/{file}"),
    };
    match files(&path) {
        Ok(bytes) => Ok(Some((path, bytes))),
        Err(reason) => Err((piece.line, format!("<{}> has file=\"{file}\": {reason}", piece.tag()))),
    }
}

fn mesh(source: &Source, piece: &Piece, files: Files) -> Result<Mesh, Complaint> {
    let name = name(source, piece)?;
    let inline = source.numbers(piece, "vertex");
    let (mut vertices, mut faces) = match (bytes_of(source, piece, files)?, inline) {
        (Some((path, bytes)), None) => {
            formats::mesh(&path, &bytes).map_err(|fault| (piece.line, format!("{path} is no mesh: {fault}")))?
        }
        (None, Some(numbers)) if numbers.len().is_multiple_of(3) => {
            (numbers.chunks_exact(3).map(DVec3::from_slice).collect(), inline_faces(source, piece)?)
        }
        (None, Some(numbers)) => {
            let message = format!("<mesh> has {} numbers in \"vertex\"; expected three for each vertex", numbers.len());
            return Err((piece.line, message));
        }
        _ => return Err((piece.line, "<mesh> needs either \"file\" or \"vertex\"; expected one of them".into())),
    };
    let vector =
        |name: &str, default| source.numbers(piece, name).map_or(default, |numbers| DVec3::from_slice(&numbers));
    let (refpos, scale) = (vector("refpos", DVec3::ZERO), vector("scale", DVec3::ONE));
    let turn = source.numbers(piece, "refquat").map_or(DQuat::IDENTITY, |wxyz| unit_quat(&wxyz)).inverse();
    for vertex in &mut vertices {
        *vertex = turn * (*vertex - refpos) * scale;
    }
    if scale.element_product() < 0.0 {
        // A mirrored surface would be inside out.
        for face in &mut faces {
            face.swap(1, 2);
        }
    }
    let inertia = match source.text(piece, "inertia") {
        Some("exact") => MeshInertia::Exact,
        Some("convex") => MeshInertia::Convex,
        // The schema accepts no other word.
        _ => MeshInertia::Legacy,
    };
    let of = source.text(piece, "file").map(|file| format!(" ({file})")).unwrap_or_default();
    Mesh::new(name.clone(), vertices, faces, inertia)
        .map_err(|fault| (piece.line, format!("the <mesh> \"{name}\"{of} is no solid: {fault}")))
}

fn inline_faces(source: &Source, piece: &Piece) -> Result<Vec<[u32; 3]>, Complaint> {
    let numbers = source.numbers(piece, "face").unwrap_or_default();
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..f64::from(u32::MAX)).contains(number);
    if !numbers.len().is_multiple_of(3) || !numbers.iter().all(whole) {
        return Err((
            piece.line,
            "<mesh> has a \"face\" that is not made of whole numbers, three for each triangle".into(),
        ));
    }
    Ok(numbers.chunks_exact(3).map(|face| [face[0] as u32, face[1] as u32, face[2] as u32]).collect())
}

fn height_field(source: &Source, piece: &Piece, files: Files) -> Result<HeightField, Complaint> {
    let name = name(source, piece)?;
    let wrong = |message: String| Err((piece.line, format!("the <hfield> \"{name}\" {message}")));
    let size: [f64; 4] = match source.numbers(piece, "size").map(<[f64; 4]>::try_from) {
        Some(Ok(size)) if size.iter().all(|size| *size > 0.0) => size,
        _ => return wrong("needs four sizes above 0; expected half x, half y, top and base in \"size\"".into()),
    };
    let count = |name: &str| source.numbers(piece, name).map_or(0, |numbers| numbers[0].max(0.0) as usize);
    let given = [count("nrow"), count("ncol")];
    let inline = source.numbers(piece, "elevation");
    let (grid, elevation) = match (bytes_of(source, piece, files)?, inline) {
        (Some(_), Some(_)) => return wrong("has \"file\" and \"elevation\"; expected one of them".into()),
        (Some((path, bytes)), None) => {
            let (grid, heights) = formats::heights(&path, &bytes)
                .map_err(|fault| (piece.line, format!("{path} is no height field: {fault}")))?;
            if given != [0, 0] && given != grid {
                let [[rows, columns], [nrow, ncol]] = [grid, given];
                return wrong(format!(
                    "has {nrow} rows of {ncol} and a picture of {rows} rows of {columns}; expected one of them"
                ));
            }
            (grid, heights)
        }
        (None, Some(heights)) => (given, heights),
        (None, None) => (given, vec![0.0; given[0].saturating_mul(given[1]).min(MOST_POINTS)]),
    };
    let [rows, columns] = grid;
    if rows < 2 || columns < 2 || rows.saturating_mul(columns) > MOST_POINTS {
        return wrong(format!(
            "has {rows} rows of {columns} points; expected 2 or more of each, and {MOST_POINTS} at most"
        ));
    }
    if elevation.len() != rows * columns {
        return wrong(format!("has {} numbers in \"elevation\"; expected {rows} × {columns}", elevation.len()));
    }
    Ok(HeightField::new(name, grid, size, &elevation))
}

/// The most grid points, those of a 4096 × 4096 picture. A larger grid would be a mistake.
const MOST_POINTS: usize = 1 << 24;
