//! What is fetched, with its version and checksum.
//!
//! `tch` 0.24 binds libtorch 2.11.0 and no other. There are two sources.
//!
//! 1. The official CPU archive. No checksum is published for it, so it is checked against itself: it comes over HTTPS,
//!    every member's CRC-32 must agree, and its `build-version` must be [`ARCHIVE_BUILD`].
//! 2. The wheels of PyTorch, through pip and whatever index or mirror pip is set up for. Only their shared libraries
//!    and headers are used, so the wheel of one Python version (cp311) serves every Python. It is pinned by one SHA-256
//!    an architecture. The wheel is a CUDA build, but its `libtorch_cpu.so` needs only two small CUDA libraries beside
//!    it, and neither a GPU nor a driver.

/// The libtorch that `tch` 0.24 binds.
pub const VERSION: &str = "2.11.0";

/// The official CPU archive. It exists for x86-64 only.
pub const ARCHIVE: &str = "https://download.pytorch.org/libtorch/cpu/libtorch-shared-with-deps-2.11.0%2Bcpu.zip";

/// What the file `build-version` in [`ARCHIVE`] must contain.
pub const ARCHIVE_BUILD: &str = "2.11.0+cpu";

/// Members of [`ARCHIVE`] that are kept: no static libraries, nothing that needs Python.
pub const ARCHIVE_KEEPS: Keep = Keep {
    strip: "libtorch/",
    keep: &["libtorch/build-version", "libtorch/lib/*.so*", "libtorch/include/*"],
    drop: &["libtorch/lib/libtorch_python*", "libtorch/lib/libshm*"],
};

/// Which members of an archive are unpacked, and to where. In a pattern, `*` stands for any characters, including `/`.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// This is removed from the front of a member's name.
    pub strip: &'static str,
    pub keep: &'static [&'static str],
    /// Overrides `keep`.
    pub drop: &'static [&'static str],
}

/// One wheel: its name and version for pip, and the SHA-256 of its file for each architecture.
#[derive(Debug, Clone, Copy)]
pub struct Wheel {
    pub name: &'static str,
    pub version: &'static str,
    pub x86_64: &'static str,
    pub aarch64: &'static str,
    /// What the CPU build keeps of it, if anything.
    pub cpu: Option<Keep>,
}

impl Wheel {
    /// The checksum of this wheel's file for `arch`, named as in `std::env::consts::ARCH`.
    pub fn sha256(&self, arch: &str) -> Option<&'static str> {
        match arch {
            "x86_64" => Some(self.x86_64),
            "aarch64" => Some(self.aarch64),
            _ => None,
        }
    }

    /// In the CUDA build everything stays where the wheels' run paths (`$ORIGIN/../../nvidia/…/lib`) expect it.
    pub fn cuda(&self) -> Keep {
        match self.name {
            "torch" => Keep {
                strip: "",
                keep: &["torch/lib/*.so*", "torch/include/*"],
                drop: &["torch/lib/libtorch_python*", "torch/lib/libshm*"],
            },
            _ => Keep { strip: "", keep: &["nvidia/*.so*"], drop: &[] },
        }
    }
}

/// PyTorch's wheel and those of its dependencies that contain libraries, in the versions that it requires. Its other
/// dependencies (triton, sympy, …) are of use to Python only.
pub const WHEELS: &[Wheel] = &[
    Wheel {
        name: "torch",
        version: VERSION,
        x86_64: "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
        aarch64: "d91aac77f24082809d2c5a93f52a5f085032740a1ebc9252a7b052ef5a4fddc6",
        cpu: Some(Keep {
            strip: "torch/",
            keep: &["torch/lib/*.so*", "torch/include/*"],
            // libtorch.so lists every CUDA library. A linker script takes its place (see `libtorch`).
            drop: &[
                "torch/lib/libtorch.so",
                "torch/lib/*cuda*",
                "torch/lib/*nvrtc*",
                "torch/lib/*nvshmem*",
                "torch/lib/libtorch_python*",
                "torch/lib/libtorch_global_deps*",
                "torch/lib/libshm*",
            ],
        }),
    },
    Wheel {
        name: "nvidia-cuda-runtime",
        version: "13.0.96",
        x86_64: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        aarch64: "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
        cpu: Some(Keep { strip: "nvidia/cu13/", keep: &["nvidia/cu13/lib/libcudart.so.13"], drop: &[] }),
    },
    Wheel {
        name: "nvidia-cuda-cupti",
        version: "13.0.85",
        x86_64: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        aarch64: "796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151",
        cpu: Some(Keep { strip: "nvidia/cu13/", keep: &["nvidia/cu13/lib/libcupti.so.13"], drop: &[] }),
    },
    Wheel {
        name: "nvidia-cublas",
        version: "13.1.0.3",
        x86_64: "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
        aarch64: "c86fc7f7ae36d7528288c5d88098edcb7b02c633d262e7ddbb86b0ad91be5df2",
        cpu: None,
    },
    Wheel {
        name: "nvidia-cuda-nvrtc",
        version: "13.0.88",
        x86_64: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        aarch64: "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
        cpu: None,
    },
    Wheel {
        name: "nvidia-cudnn-cu13",
        version: "9.19.0.56",
        x86_64: "d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf",
        aarch64: "6ed29ffaee1176c612daf442e4dd6cfeb6a0caa43ddcbeb59da94953030b1be4",
        cpu: None,
    },
    Wheel {
        name: "nvidia-cufft",
        version: "12.0.0.61",
        x86_64: "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
        aarch64: "2708c852ef8cd89d1d2068bdbece0aa188813a0c934db3779b9b1faa8442e5f5",
        cpu: None,
    },
    Wheel {
        name: "nvidia-cufile",
        version: "1.15.1.6",
        x86_64: "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
        aarch64: "bdc0deedc61f548bddf7733bdc216456c2fdb101d020e1ab4b88d232d5e2f6d1",
        cpu: None,
    },
    Wheel {
        name: "nvidia-curand",
        version: "10.4.0.35",
        x86_64: "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
        aarch64: "133df5a7509c3e292aaa2b477afd0194f06ce4ea24d714d616ff36439cee349a",
        cpu: None,
    },
    Wheel {
        name: "nvidia-cusolver",
        version: "12.0.4.66",
        x86_64: "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
        aarch64: "02c2457eaa9e39de20f880f4bd8820e6a1cfb9f9a34f820eb12a155aa5bc92d2",
        cpu: None,
    },
    Wheel {
        name: "nvidia-cusparse",
        version: "12.6.3.3",
        x86_64: "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
        aarch64: "80bcc4662f23f1054ee334a15c72b8940402975e0eab63178fc7e670aa59472c",
        cpu: None,
    },
    Wheel {
        name: "nvidia-cusparselt-cu13",
        version: "0.8.0",
        x86_64: "25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd",
        aarch64: "400c6ed1cf6780fc6efedd64ec9f1345871767e6a1a0a552a1ea0578117ea77c",
        cpu: None,
    },
    Wheel {
        name: "nvidia-nccl-cu13",
        version: "2.28.9",
        x86_64: "e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42",
        aarch64: "01c873ba1626b54caa12272ed228dc5b2781545e0ae8ba3f432a8ef1c6d78643",
        cpu: None,
    },
    Wheel {
        name: "nvidia-nvjitlink",
        version: "13.0.88",
        x86_64: "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
        aarch64: "e931536ccc7d467a98ba1d8b89ff7fa7f1fa3b13f2b0069118cd7f47bff07d0c",
        cpu: None,
    },
    Wheel {
        name: "nvidia-nvshmem-cu13",
        version: "3.4.5",
        x86_64: "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
        aarch64: "6dc2a197f38e5d0376ad52cd1a2a3617d3cdc150fd5966f4aee9bcebb1d68fe9",
        cpu: None,
    },
    Wheel {
        name: "nvidia-nvtx",
        version: "13.0.85",
        x86_64: "4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4",
        aarch64: "cb7780edb6b14107373c835bf8b72e7a178bac7367e23da7acb108f973f157a6",
        cpu: None,
    },
];
