//! The supported subset of MJCF, as a table, and the pass that checks a file against it.

use super::Complaint;
use roxmltree::{Attribute, Document, Node};
use std::collections::HashMap;

/// What an attribute's value must look like.
#[derive(Clone, Copy)]
enum Value {
    Text,
    OneOf(&'static [&'static str]),
    /// Between the two given numbers of finite numbers.
    Numbers(usize, usize),
    Whole,
}

use Value::{Numbers, OneOf, Text, Whole};

const YES_NO: Value = OneOf(&["true", "false"]);
const YES_NO_AUTO: Value = OneOf(&["true", "false", "auto"]);
const NUMBER: Value = Numbers(1, 1);
const PAIR: Value = Numbers(2, 2);
const VECTOR: Value = Numbers(3, 3);

/// An element, the attributes that it may have and the elements that may stand in it.
struct Element {
    tag: &'static str,
    attributes: &'static [&'static [(&'static str, Value)]],
    children: &'static [&'static Element],
}

/// Elements for appearance, memory and bookkeeping. No step depends on them, so the file may contain them, whatever is
/// in them.
const WITHOUT_PHYSICS: &[&str] = &["visual", "statistic", "size", "custom", "camera", "light"];

/// The same inside `<asset>`.
const LOOKS: &[&str] = &["texture", "material"];

type Attributes = &'static [(&'static str, Value)];

const NAME_AND_CLASS: Attributes = &[("name", Text), ("class", Text)];

const POSE: Attributes = &[
    ("pos", VECTOR),
    ("quat", Numbers(4, 4)),
    ("axisangle", Numbers(4, 4)),
    ("euler", VECTOR),
    ("xyaxes", Numbers(6, 6)),
    ("zaxis", VECTOR),
];

/// At most one of these may give an orientation.
const ORIENTATIONS: &[&str] = &["quat", "axisangle", "euler", "xyaxes", "zaxis", "fromto"];

const JOINT: Attributes = &[
    ("type", OneOf(&["free", "slide", "hinge"])),
    ("group", Whole),
    ("pos", VECTOR),
    ("axis", VECTOR),
    ("limited", YES_NO_AUTO),
    ("range", PAIR),
    ("solreflimit", Numbers(1, 2)),
    ("solimplimit", Numbers(1, 5)),
    ("stiffness", NUMBER),
    ("springref", NUMBER),
    ("damping", NUMBER),
    ("armature", NUMBER),
    ("frictionloss", NUMBER),
    ("margin", NUMBER),
    ("ref", NUMBER),
];

/// Attributes that a geom and a default geom share.
const GEOM: Attributes = &[
    ("type", OneOf(&["plane", "hfield", "sphere", "capsule", "cylinder", "box", "mesh"])),
    ("mesh", Text),
    ("hfield", Text),
    ("group", Whole),
    ("size", Numbers(1, 3)),
    ("mass", NUMBER),
    ("density", NUMBER),
    ("contype", Whole),
    ("conaffinity", Whole),
    ("condim", OneOf(&["1", "3", "4", "6"])),
    ("priority", Whole),
    ("friction", Numbers(1, 3)),
    ("margin", NUMBER),
    ("gap", NUMBER),
    ("solmix", NUMBER),
    ("solref", Numbers(1, 2)),
    ("solimp", Numbers(1, 5)),
    ("rgba", Numbers(4, 4)),
    ("material", Text),
];

const SITE: Attributes = &[
    ("type", OneOf(&["sphere", "capsule", "ellipsoid", "cylinder", "box"])),
    ("group", Whole),
    ("size", Numbers(1, 3)),
    ("rgba", Numbers(4, 4)),
    ("material", Text),
];

const MOTOR: Attributes =
    &[("group", Whole), ("ctrllimited", YES_NO_AUTO), ("ctrlrange", PAIR), ("gear", Numbers(1, 6))];

/// Attributes that a mesh and a default mesh share.
const MESH: Attributes = &[("scale", VECTOR), ("inertia", OneOf(&["convex", "exact", "legacy"]))];

/// Any number of them.
const MANY: usize = usize::MAX;

static ASSET: Element = Element {
    tag: "asset",
    attributes: &[],
    children: &[
        &Element {
            tag: "mesh",
            attributes: &[
                NAME_AND_CLASS,
                MESH,
                &[
                    ("file", Text),
                    ("vertex", Numbers(12, MANY)),
                    ("face", Numbers(3, MANY)),
                    ("refpos", VECTOR),
                    ("refquat", Numbers(4, 4)),
                ],
            ],
            children: &[],
        },
        &Element {
            tag: "hfield",
            attributes: &[&[
                ("name", Text),
                ("file", Text),
                ("nrow", Whole),
                ("ncol", Whole),
                ("elevation", Numbers(1, MANY)),
                ("size", Numbers(4, 4)),
            ]],
            children: &[],
        },
    ],
};

static MUJOCO: Element = Element {
    tag: "mujoco",
    attributes: &[&[("model", Text)]],
    children: &[&COMPILER, &OPTION, &DEFAULT, &ASSET, &WORLDBODY, &ACTUATOR],
};

static COMPILER: Element = Element {
    tag: "compiler",
    attributes: &[&[
        ("angle", OneOf(&["degree", "radian"])),
        ("coordinate", OneOf(&["local"])),
        ("eulerseq", Text),
        ("autolimits", YES_NO),
        ("inertiafromgeom", YES_NO_AUTO),
        ("settotalmass", NUMBER),
        ("meshdir", Text),
        ("assetdir", Text),
        ("texturedir", Text),
    ]],
    children: &[],
};

static OPTION: Element = Element {
    tag: "option",
    attributes: &[&[
        ("timestep", NUMBER),
        ("gravity", VECTOR),
        ("integrator", OneOf(&["Euler", "RK4"])),
        ("solver", OneOf(&["PGS", "CG", "Newton"])),
        ("cone", OneOf(&["pyramidal"])),
        ("iterations", Whole),
        ("tolerance", NUMBER),
        ("impratio", NUMBER),
        ("density", NUMBER),
        ("viscosity", NUMBER),
    ]],
    children: &[],
};

static DEFAULT: Element = Element {
    tag: "default",
    attributes: &[&[("class", Text)]],
    children: &[
        &DEFAULT,
        &Element { tag: "joint", attributes: &[JOINT], children: &[] },
        &Element { tag: "geom", attributes: &[GEOM], children: &[] },
        &Element { tag: "mesh", attributes: &[MESH], children: &[] },
        &Element { tag: "site", attributes: &[SITE], children: &[] },
        &Element { tag: "motor", attributes: &[MOTOR], children: &[] },
    ],
};

static WORLDBODY: Element = Element { tag: "worldbody", attributes: &[], children: &[&GEOM_HERE, &SITE_HERE, &BODY] };

static BODY: Element = Element {
    tag: "body",
    attributes: &[&[("name", Text), ("childclass", Text)], POSE],
    children: &[
        &Element {
            tag: "inertial",
            attributes: &[&[("mass", NUMBER), ("diaginertia", VECTOR), ("fullinertia", Numbers(6, 6))], POSE],
            children: &[],
        },
        &Element { tag: "joint", attributes: &[NAME_AND_CLASS, JOINT], children: &[] },
        &Element { tag: "freejoint", attributes: &[&[("name", Text), ("group", Whole)]], children: &[] },
        &GEOM_HERE,
        &SITE_HERE,
        &BODY,
    ],
};

static GEOM_HERE: Element =
    Element { tag: "geom", attributes: &[NAME_AND_CLASS, POSE, GEOM, &[("fromto", Numbers(6, 6))]], children: &[] };

static SITE_HERE: Element = Element { tag: "site", attributes: &[NAME_AND_CLASS, POSE, SITE], children: &[] };

static ACTUATOR: Element = Element {
    tag: "actuator",
    attributes: &[],
    children: &[&Element { tag: "motor", attributes: &[NAME_AND_CLASS, MOTOR, &[("joint", Text)]], children: &[] }],
};

impl Element {
    fn attribute(&self, name: &str) -> Option<Value> {
        self.attributes.iter().copied().flatten().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// One element of the file, and where to look up an attribute that it does not have itself.
pub struct Piece<'a> {
    /// Its line, counted from 1.
    pub line: u32,
    node: Node<'a, 'a>,
    class: &'a str,
}

/// A body's elements in the order of the file, which is the order in which mjcf-rs lists them.
pub struct BodyPieces<'a> {
    pub line: u32,
    pub joints: Vec<Piece<'a>>,
    pub geoms: Vec<Piece<'a>>,
}

impl Piece<'_> {
    /// What it is.
    pub fn tag(&self) -> &str {
        self.node.tag_name().name()
    }
}

/// A file that lies inside the subset, with its lines and its default classes.
pub struct Source<'a> {
    pub root_line: u32,
    /// The world first, then depth first.
    pub bodies: Vec<BodyPieces<'a>>,
    pub motors: Vec<Piece<'a>>,
    pub meshes: Vec<Piece<'a>>,
    pub hfields: Vec<Piece<'a>>,
    classes: HashMap<&'a str, Class<'a>>,
    document: &'a Document<'a>,
}

/// A default class: its parent and its elements.
#[derive(Default)]
struct Class<'a> {
    parent: Option<&'a str>,
    elements: Vec<Node<'a, 'a>>,
}

const MAIN: &str = "main";

/// Characters of a value that a message shows.
const LONGEST: usize = 60;

/// Checks the whole file against the subset and collects what the compiler needs in addition to mjcf-rs' result.
pub fn check<'a>(document: &'a Document<'a>) -> Result<Source<'a>, Complaint> {
    let root = document.root_element();
    let mut source = Source {
        root_line: line(document, root),
        bodies: vec![BodyPieces { line: line(document, root), joints: vec![], geoms: vec![] }],
        motors: vec![],
        meshes: vec![],
        hfields: vec![],
        classes: HashMap::from([(MAIN, Class::default())]),
        document,
    };
    if root.tag_name().name() != MUJOCO.tag {
        return Err((source.root_line, format!("the root element is <{}>; expected <mujoco>", root.tag_name().name())));
    }
    source.element(root, &MUJOCO)?;
    for child in elements(root).filter(|child| child.has_tag_name("default")) {
        source.default_class(child, None)?;
    }
    for child in elements(root) {
        match child.tag_name().name() {
            "worldbody" => source.body(child, 0, MAIN)?,
            "asset" => {
                for asset in elements(child) {
                    let piece = source.piece(asset, MAIN);
                    match asset.tag_name().name() {
                        "mesh" => source.meshes.push(piece?),
                        "hfield" => source.hfields.push(piece?),
                        _ => {}
                    }
                }
            }
            "actuator" => {
                for motor in elements(child) {
                    let piece = source.piece(motor, MAIN)?;
                    source.motors.push(piece);
                }
            }
            _ => {}
        }
    }
    Ok(source)
}

impl<'a> Source<'a> {
    /// Checks an element, its attributes and everything in it.
    fn element(&self, node: Node<'a, 'a>, known: &Element) -> Result<(), Complaint> {
        for attribute in node.attributes() {
            let value = known.attribute(attribute.name()).ok_or_else(|| {
                let names: Vec<_> = known.attributes.iter().copied().flatten().map(|(name, _)| *name).collect();
                let expected = if names.is_empty() {
                    "expected none".to_owned()
                } else {
                    format!("expected one of {}", names.join(", "))
                };
                let message = format!(
                    "<{}> has the attribute \"{}\", which is not supported; {expected}",
                    known.tag,
                    attribute.name()
                );
                (self.attribute_line(attribute), message)
            })?;
            self.value(known, attribute, value)?;
        }
        let turned: Vec<_> = ORIENTATIONS.iter().filter(|name| node.has_attribute(**name)).copied().collect();
        if turned.len() > 1 {
            let message = format!("<{}> has {}; expected one orientation", known.tag, turned.join(" and "));
            return Err((line(self.document, node), message));
        }
        if node.has_attribute("fromto") && node.has_attribute("pos") {
            let message = "<geom> has fromto and pos; expected one of them".to_owned();
            return Err((line(self.document, node), message));
        }
        for child in elements(node) {
            let tag = child.tag_name().name();
            if WITHOUT_PHYSICS.contains(&tag) || known.tag == "asset" && LOOKS.contains(&tag) {
                continue;
            }
            let known_child = known.children.iter().find(|known| known.tag == tag).ok_or_else(|| {
                let tags: Vec<_> = known.children.iter().map(|child| child.tag).collect();
                let expected = if tags.is_empty() {
                    "expected nothing in it".to_owned()
                } else {
                    format!("expected one of {}", tags.join(", "))
                };
                (line(self.document, child), format!("<{tag}> in <{}> is not supported; {expected}", known.tag))
            })?;
            self.element(child, known_child)?;
        }
        Ok(())
    }

    fn value(&self, element: &Element, attribute: Attribute<'a, 'a>, value: Value) -> Result<(), Complaint> {
        let text = attribute.value();
        let expected = match value {
            // Names appear in later messages.
            Text if !text.contains(char::is_control) => return Ok(()),
            Text => "text without control characters".to_owned(),
            OneOf(words) if words.contains(&text) => return Ok(()),
            OneOf(words) => format!("one of {}", words.join(", ")),
            Whole if text.trim_ascii().parse::<i32>().is_ok() => return Ok(()),
            Whole => "a whole number".to_owned(),
            Numbers(least, most) => {
                let parsed: Option<Vec<f64>> = text.split_ascii_whitespace().map(|word| word.parse().ok()).collect();
                if parsed.is_some_and(|numbers| {
                    (least..=most).contains(&numbers.len()) && numbers.iter().all(|number: &f64| number.is_finite())
                }) {
                    return Ok(());
                }
                match (least, most) {
                    (1, 1) => "a number".to_owned(),
                    _ if least == most => format!("{least} numbers"),
                    (_, MANY) => format!("{least} numbers or more"),
                    _ => format!("{least} to {most} numbers"),
                }
            }
        };
        let shown: String = match text.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        };
        let message = format!("<{}> has {}=\"{shown}\"; expected {expected}", element.tag, attribute.name());
        Err((self.attribute_line(attribute), message))
    }

    fn default_class(&mut self, node: Node<'a, 'a>, parent: Option<&'a str>) -> Result<(), Complaint> {
        let name = match (node.attribute("class"), parent) {
            (Some(name), _) => name,
            (None, None) => MAIN,
            (None, Some(_)) => {
                return Err((
                    line(self.document, node),
                    "a <default> in a <default> has no class; expected a name".into(),
                ));
            }
        };
        if parent.is_none() && name != MAIN {
            let message = format!("the outermost <default> has class=\"{name}\"; expected \"main\" or none");
            return Err((line(self.document, node), message));
        }
        // A class that contains itself would be searched forever.
        if self.classes.get(name).is_some_and(|known| known.parent != parent) {
            let message = format!("the class \"{name}\" was defined before, in another class; expected a new name");
            return Err((line(self.document, node), message));
        }
        let class = self.classes.entry(name).or_default();
        class.parent = parent;
        class.elements.extend(elements(node).filter(|child| !child.has_tag_name("default")));
        for child in elements(node).filter(|child| child.has_tag_name("default")) {
            self.default_class(child, Some(name))?;
        }
        Ok(())
    }

    /// Gathers a body's pieces into `self.bodies[index]`, then its children's.
    fn body(&mut self, node: Node<'a, 'a>, index: usize, ambient: &'a str) -> Result<(), Complaint> {
        let ambient = node.attribute("childclass").unwrap_or(ambient);
        self.known_class(node, ambient)?;
        for child in elements(node) {
            match child.tag_name().name() {
                "joint" | "freejoint" => {
                    let piece = self.piece(child, ambient)?;
                    self.bodies[index].joints.push(piece);
                }
                "geom" => {
                    let piece = self.piece(child, ambient)?;
                    self.bodies[index].geoms.push(piece);
                }
                "body" => {
                    let line = line(self.document, child);
                    self.bodies.push(BodyPieces { line, joints: vec![], geoms: vec![] });
                    self.body(child, self.bodies.len() - 1, ambient)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn piece(&self, node: Node<'a, 'a>, ambient: &'a str) -> Result<Piece<'a>, Complaint> {
        let class = node.attribute("class").unwrap_or(ambient);
        self.known_class(node, class)?;
        Ok(Piece { line: line(self.document, node), node, class })
    }

    fn known_class(&self, node: Node<'a, 'a>, class: &str) -> Result<(), Complaint> {
        if self.classes.contains_key(class) {
            return Ok(());
        }
        let mut names: Vec<_> = self.classes.keys().copied().collect();
        names.sort_unstable();
        let message = format!(
            "<{}> names the class \"{class}\", which no <default> defines; expected one of {}",
            node.tag_name().name(),
            names.join(", ")
        );
        Err((line(self.document, node), message))
    }

    /// An attribute, from the element itself or the nearest default class that has it.
    pub fn text(&self, piece: &Piece<'a>, name: &str) -> Option<&'a str> {
        piece.node.attribute(name).or_else(|| {
            // A freejoint takes no defaults, as in MuJoCo.
            let tag = piece.node.tag_name().name();
            let chain = std::iter::successors(Some(piece.class), |class| self.classes.get(class)?.parent);
            chain
                .filter_map(|class| self.classes.get(class))
                .flat_map(|class| class.elements.iter().rev())
                .find_map(|element| element.has_tag_name(tag).then(|| element.attribute(name)).flatten())
        })
    }

    /// The numbers of an attribute, as [`Source::text`] finds it.
    pub fn numbers(&self, piece: &Piece<'a>, name: &str) -> Option<Vec<f64>> {
        // `element` has checked that every word is a number.
        Some(self.text(piece, name)?.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect())
    }

    /// A word of `<option>`, from the last one that has it.
    pub fn option(&self, name: &str) -> Option<&'a str> {
        self.last("option", name)
    }

    /// A word of `<compiler>`, from the last one that has it.
    pub fn compiler(&self, name: &str) -> Option<&'a str> {
        self.last("compiler", name)
    }

    fn last(&self, tag: &str, name: &str) -> Option<&'a str> {
        elements(self.document.root_element())
            .filter(|child| child.has_tag_name(tag))
            .filter_map(|element| element.attribute(name))
            .last()
    }

    fn attribute_line(&self, attribute: Attribute) -> u32 {
        self.document.text_pos_at(attribute.range().start).row
    }
}

fn elements<'a>(node: Node<'a, 'a>) -> impl Iterator<Item = Node<'a, 'a>> {
    node.children().filter(Node::is_element)
}

fn line(document: &Document, node: Node) -> u32 {
    document.text_pos_at(node.range().start).row
}
