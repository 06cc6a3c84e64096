//! The file formats of meshes and height fields: STL, OBJ and PNG, parsed from bytes.

use glam::DVec3;
use std::collections::HashMap;

/// Vertices, and three indices into them for each triangle.
pub type Surface = (Vec<DVec3>, Vec<[u32; 3]>);

/// Reads the file of a mesh, in the format that its name's ending says.
pub fn mesh(path: &str, bytes: &[u8]) -> Result<Surface, String> {
    match ending(path).as_str() {
        "stl" => stl(bytes),
        "obj" => obj(bytes),
        other => Err(format!("its ending is \"{other}\"; expected stl or obj")),
    }
}

/// Reads the file of a height field: rows, columns and elevations, the first row first.
pub fn heights(path: &str, bytes: &[u8]) -> Result<([usize; 2], Vec<f64>), String> {
    match ending(path).as_str() {
        "png" => png(bytes),
        other => Err(format!("its ending is \"{other}\"; expected png")),
    }
}

fn ending(path: &str) -> String {
    path.rsplit_once('.').map_or(String::new(), |(_, ending)| ending.to_ascii_lowercase())
}

/// Bytes of a binary STL file before its triangles, and of each triangle.
const STL_HEAD: usize = 84;
const STL_TRIANGLE: usize = 50;

/// STL, binary or text. Its triangles share no vertices, so vertices at the same place are merged.
fn stl(bytes: &[u8]) -> Result<Surface, String> {
    let corners = match binary_stl(bytes) {
        Some(corners) => corners,
        None if bytes.trim_ascii_start().starts_with(b"solid") => text_stl(bytes)?,
        None => {
            return Err(match bytes.get(80..STL_HEAD) {
                Some(&[a, b, c, d]) => {
                    let triangles = u32::from_le_bytes([a, b, c, d]) as usize;
                    format!(
                        "a binary STL file of {triangles} triangles has {} bytes; this one has {}",
                        triangles.saturating_mul(STL_TRIANGLE).saturating_add(STL_HEAD),
                        bytes.len()
                    )
                }
                _ => format!(
                    "an STL file has {STL_HEAD} bytes at least, or begins with \"solid\"; this one has {}",
                    bytes.len()
                ),
            });
        }
    };
    if corners.is_empty() {
        return Err("it has no triangle".into());
    }
    if !corners.iter().all(|corner| corner.is_finite()) {
        return Err("a coordinate is not finite".into());
    }
    let mut known: HashMap<[u64; 3], u32> = HashMap::new();
    let mut vertices = vec![];
    let indices: Vec<u32> = corners
        .into_iter()
        .map(|corner| {
            *known.entry(corner.to_array().map(|x| (x + 0.0).to_bits())).or_insert_with(|| {
                vertices.push(corner);
                vertices.len() as u32 - 1
            })
        })
        .collect();
    let faces = indices.chunks_exact(3).map(|face| [face[0], face[1], face[2]]).collect();
    Ok((vertices, faces))
}

/// The corners of a binary file; `None` if its length does not match its header.
fn binary_stl(bytes: &[u8]) -> Option<Vec<DVec3>> {
    let count = u32::from_le_bytes(bytes.get(80..STL_HEAD)?.try_into().ok()?) as usize;
    let triangles = bytes[STL_HEAD..].chunks_exact(STL_TRIANGLE);
    if !triangles.remainder().is_empty() || triangles.len() != count {
        return None;
    }
    let number = |four: &[u8]| f64::from(f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
    let corner = |twelve: &[u8]| DVec3::new(number(twelve), number(&twelve[4..]), number(&twelve[8..]));
    // A normal, three corners and two attribute bytes, which are ignored.
    Some(triangles.flat_map(|triangle| triangle[12..48].chunks_exact(12).map(corner)).collect())
}

fn text_stl(bytes: &[u8]) -> Result<Vec<DVec3>, String> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| "it begins with \"solid\" but is neither text nor whole".to_owned())?;
    let (mut corners, mut in_loop) = (vec![], None);
    for (number, line) in text.lines().enumerate() {
        let wrong = |expected: &str| format!("line {}: expected {expected}", number + 1);
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [] | ["solid" | "endsolid" | "facet" | "endfacet", ..] => {}
            ["outer", "loop"] if in_loop.is_some() => return Err(wrong("endloop before the next loop")),
            ["outer", "loop"] => in_loop = Some(corners.len()),
            ["vertex", x, y, z] => corners.push(vector([x, y, z]).ok_or_else(|| wrong("three numbers"))?),
            ["endloop"] => match in_loop.take() {
                Some(start) if corners.len() == start + 3 => {}
                _ => return Err(wrong("three vertices in a loop")),
            },
            _ => return Err(wrong("a word of STL: solid, facet, outer loop, vertex, endloop, endfacet or endsolid")),
        }
    }
    match in_loop {
        None if text.contains("endsolid") => Ok(corners),
        _ => Err("it ends in the middle; expected \"endsolid\"".into()),
    }
}

/// Wavefront OBJ: vertices and faces. A face of more than three corners is cut into triangles that share its first
/// corner.
fn obj(bytes: &[u8]) -> Result<Surface, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let (mut vertices, mut faces) = (vec![], vec![]);
    for (number, line) in text.lines().enumerate() {
        let wrong = |expected: &str| format!("line {}: expected {expected}", number + 1);
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_ascii_whitespace().collect();
        match words[..] {
            // A weight or a colour may follow.
            ["v", x, y, z, ..] => vertices.push(vector([x, y, z]).ok_or_else(|| wrong("three numbers"))?),
            ["f", ref corners @ ..] if corners.len() >= 3 => {
                let index = |corner: &&str| {
                    // Indices count from 1, or backwards from the last vertex so far. Texture and normal follow after
                    // slashes.
                    let index: i64 = corner.split('/').next()?.parse().ok()?;
                    let index = if index < 0 { vertices.len() as i64 + index } else { index - 1 };
                    u32::try_from(index).ok().filter(|index| (*index as usize) < vertices.len())
                };
                let corners: Option<Vec<u32>> = corners.iter().map(index).collect();
                let corners = corners.ok_or_else(|| wrong("vertices that stand before the face"))?;
                faces.extend(corners[1..].windows(2).map(|pair| [corners[0], pair[0], pair[1]]));
            }
            [] | ["vn" | "vt" | "vp" | "o" | "g" | "s" | "mtllib" | "usemtl" | "l" | "p", ..] => {}
            _ => return Err(wrong("a vertex (v), a face (f) or a word of OBJ about looks")),
        }
    }
    Ok((vertices, faces))
}

fn vector(words: [&str; 3]) -> Option<DVec3> {
    let [x, y, z] = words.map(|word| word.parse().unwrap_or(f64::NAN));
    Some(DVec3::new(x, y, z)).filter(|vector| vector.is_finite())
}

/// A picture's first channel in eight bits, as MuJoCo reads it.
fn png(bytes: &[u8]) -> Result<([usize; 2], Vec<f64>), String> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let size = reader.output_buffer_size().ok_or("it is too large")?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(|error| error.to_string())?;
    let channels = frame.color_type.samples();
    let heights = pixels[..frame.buffer_size()].iter().step_by(channels).map(|level| f64::from(*level)).collect();
    Ok(([frame.height as usize, frame.width as usize], heights))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TETRAHEDRON: [[u32; 3]; 4] = [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]];
    const CORNERS: [[f32; 3]; 4] = [[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

    fn binary() -> Vec<u8> {
        let mut bytes = vec![0; 80];
        bytes.extend(4_u32.to_le_bytes());
        for face in TETRAHEDRON {
            bytes.extend([0; 12]);
            bytes.extend(face.iter().flat_map(|at| CORNERS[*at as usize]).flat_map(f32::to_le_bytes));
            bytes.extend([0; 2]);
        }
        bytes
    }

    fn text() -> String {
        let facet = |face: [u32; 3]| {
            let vertex = |at: u32| format!("vertex {:?}\n", CORNERS[at as usize]).replace(['[', ']', ','], "");
            format!("facet normal 0 0 0\nouter loop\n{}endloop\nendfacet\n", face.map(vertex).concat())
        };
        format!("solid tetra\n{}endsolid tetra\n", TETRAHEDRON.map(facet).concat())
    }

    #[test]
    fn stl_is_the_same_surface_as_text_and_as_bytes() {
        let (vertices, faces) = mesh("a.STL", &binary()).unwrap();
        assert_eq!((vertices.len(), faces.len()), (4, 4));
        assert_eq!(mesh("a.stl", text().as_bytes()).unwrap(), (vertices.clone(), faces.clone()));
        // A binary file may begin with the word that marks a text file.
        let mut solid = binary();
        solid[..5].copy_from_slice(b"solid");
        assert_eq!(mesh("a.stl", &solid).unwrap(), (vertices.clone(), faces.clone()));
        let corners: Vec<_> =
            faces.iter().map(|face| face.map(|at| vertices[at as usize].as_vec3().to_array())).collect();
        assert_eq!(corners, TETRAHEDRON.map(|face| face.map(|at| CORNERS[at as usize])));
    }

    #[test]
    fn obj_counts_from_one_or_backwards_and_cuts_polygons() {
        let text = "# a roof\nmtllib x.mtl\nv 0 0 0\nv 1 0 0 0.5\nv 1 1 0\nv 0 1 0\nvn 0 0 1\nf 1/1/1 2//1 3 -1\nf -4 2 3 # again\n";
        let (vertices, faces) = mesh("roof.obj", text.as_bytes()).unwrap();
        assert_eq!((vertices.len(), vertices[2]), (4, DVec3::new(1.0, 1.0, 0.0)));
        assert_eq!(faces, [[0, 1, 2], [0, 2, 3], [0, 1, 2]]);
    }

    #[test]
    fn what_is_broken_is_said() {
        let check = |path: &str, bytes: &[u8], words: &str| {
            let error = mesh(path, bytes).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        check("a.stl", &binary()[..150], "of 4 triangles has 284 bytes; this one has 150");
        check("a.stl", b"abc", "this one has 3");
        check("a.stl", b"solid x\nendsolid x", "no triangle");
        check("a.stl", text().replacen("endloop\n", "", 1).as_bytes(), "line 9: expected endloop before the next loop");
        check(
            "a.stl",
            text().replacen("endloop", "vertex 0 0 0\nendloop", 1).as_bytes(),
            "line 8: expected three vertices in a loop",
        );
        check("a.stl", text().replacen("vertex 0.0", "vertex nil", 1).as_bytes(), "line 4: expected three numbers");
        check("a.stl", &text().as_bytes()[..200], "it ends in the middle");
        check("a.obj", b"v 0 0 0\nf 1 2 3\n", "line 2: expected vertices that stand before the face");
        check("a.obj", b"v 0 0\n", "line 1: expected a vertex");
        check("a.obj", b"curv 0 0 1\n", "line 1: expected");
        check("a.ply", b"", "its ending is \"ply\"; expected stl or obj");
        assert!(heights("a.png", b"\x89PNG").is_err() && heights("a.raw", b"").is_err());
    }
}
