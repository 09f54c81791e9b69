//! One mapping of a weights file for all sessions of this process.
//!
//! ONNX Runtime maps the file for each session. The pages are the same ones, but they count once for each mapping in the
//! process's resident size, which is what limits and dashboards look at. So the file is mapped here, and sessions are told
//! where each weight is. Weights that ONNX Runtime keeps in an arrangement of its own are left to it.

#![allow(unsafe_code, reason = "a memory map, and pointers into it; each use gives its reason")]

use std::{
    ffi::CString,
    fs::File,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use memmap2::Mmap;
use ort::{
    AsPointer,
    memory::MemoryInfo,
    session::builder::SessionBuilder,
    value::{DynValueTypeMarker, Shape, TensorRefMut, ValueRefMut},
};

use super::initializers::{External, external};

/// The weights of one file, which must live longer than the sessions that use them.
pub struct SharedWeights {
    // Before the map that they point into, as fields are dropped in this order.
    tensors: Vec<(CString, ValueRefMut<'static, DynValueTypeMarker>)>,
    _map: Mmap,
}

/// A file as it is now: its device, inode, size, and time of change.
type Identity = (u64, u64, u64, i64, i64);

static OPEN: Mutex<Vec<(Identity, Weak<SharedWeights>)>> = Mutex::new(Vec::new());

impl SharedWeights {
    /// The weights of the graph `graph` that are in the file `data`. `None` if that does not work, which costs memory only:
    /// ONNX Runtime then maps the file itself, or says what is wrong with it.
    pub fn of(graph: &Path, data: &Path) -> Option<Arc<Self>> {
        let model = std::fs::read(graph).ok()?;
        let file = File::open(data).ok()?;
        let found = file.metadata().ok()?;
        let identity = (found.dev(), found.ino(), found.len(), found.ctime(), found.ctime_nsec());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, weights)| weights.strong_count() > 0);
        let known = open.iter().find(|(known, _)| *known == identity);
        if let Some(weights) = known.and_then(|(_, weights)| weights.upgrade()) {
            return Some(weights);
        }
        let weights = Arc::new(Self::map(&model, &file, data.file_name()?.to_str()?)?);
        open.push((identity, Arc::downgrade(&weights)));
        Some(weights)
    }

    fn map(model: &[u8], file: &File, name: &str) -> Option<Self> {
        // SAFETY: the map is only read. Nobody may change the file meanwhile: it is in a directory that `prepare` filled
        // and that is only ever replaced as a whole; ONNX Runtime's own map would have the same condition.
        let map = unsafe { Mmap::map(file) }.ok()?;
        let wanted = external(model)?.into_iter().filter(|weight| weight.file == name && !weight.packed);
        let tensors = wanted.filter_map(|weight| Some((CString::new(weight.name).ok()?, tensor(&map, &weight)?)));
        Some(Self { tensors: tensors.collect(), _map: map })
    }

    /// Tells `builder` where the weights are.
    ///
    /// # Safety
    /// They must be kept until the session that it makes is gone.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub unsafe fn give(&self, builder: &mut SessionBuilder) -> ort::Result<()> {
        for (name, tensor) in &self.tensors {
            // SAFETY: all three pointers are valid; ONNX Runtime keeps the last one, as the caller warrants.
            let status = unsafe { (ort::api().AddInitializer)(builder.ptr_mut(), name.as_ptr(), tensor.ptr()) };
            // SAFETY: a status is looked at once, and so freed.
            unsafe { ort::Error::result_from_status(status) }?;
        }
        Ok(())
    }
}

/// The tensor where it lies in the map; `None` if it does not lie there, or is of a type that our graphs do not have.
fn tensor(map: &Mmap, weight: &External) -> Option<ValueRefMut<'static, DynValueTypeMarker>> {
    let bytes = map.get(weight.offset..weight.offset.checked_add(weight.length)?)?;
    let size = match weight.element {
        1 | 6 => 4,
        7 => 8,
        2 | 3 => 1,
        _ => return None,
    };
    let count = weight.dims.iter().try_fold(1usize, |all, dim| all.checked_mul(usize::try_from(*dim).ok()?))?;
    if count.checked_mul(size)? != bytes.len() || !bytes.as_ptr().addr().is_multiple_of(size) {
        return None;
    }
    let (info, start, shape) =
        (MemoryInfo::default(), bytes.as_ptr().cast_mut().cast(), Shape::new(weight.dims.clone()));
    // SAFETY: the bytes are as many as the shape has elements of the type, and stand where such elements may; the map is
    // kept longer than the tensor (see `SharedWeights`). The type says that it may be written to, but initializers are not.
    let tensor = unsafe {
        match weight.element {
            1 => TensorRefMut::<f32>::from_raw(info, start, shape).map(TensorRefMut::into_dyn),
            2 => TensorRefMut::<u8>::from_raw(info, start, shape).map(TensorRefMut::into_dyn),
            3 => TensorRefMut::<i8>::from_raw(info, start, shape).map(TensorRefMut::into_dyn),
            6 => TensorRefMut::<i32>::from_raw(info, start, shape).map(TensorRefMut::into_dyn),
            _ => TensorRefMut::<i64>::from_raw(info, start, shape).map(TensorRefMut::into_dyn),
        }
    };
    tensor.ok()
}
