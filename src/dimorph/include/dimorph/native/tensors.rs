use super::ffi::free;
use std::ffi::{c_char, c_void, CStr};
use std::marker::PhantomData;
use std::{fmt, ptr, slice};

/// A DLPack device.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    pub device_type: i32,
    pub device_id: i32,
}
pub const CPU: Device = Device { device_type: 1, device_id: 0 };
pub fn cuda(ordinal: i32) -> Device {
    Device { device_type: 2, device_id: ordinal }
}

/// A DLPack element type.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DataType {
    pub code: u8,
    pub bits: u8,
    pub lanes: u16,
}
pub const FLOAT16: DataType = DataType { code: 2, bits: 16, lanes: 1 };
pub const BFLOAT16: DataType = DataType { code: 4, bits: 16, lanes: 1 };

/// Types of elements. Unsafe, because memory of this type is handed to the kernels as `DTYPE`.
pub unsafe trait Element: Copy {
    const DTYPE: DataType;
}
macro_rules! element {
    ($type:ty, $code:expr) => {
        unsafe impl Element for $type {
            const DTYPE: DataType =
                DataType { code: $code, bits: 8 * std::mem::size_of::<$type>() as u8, lanes: 1 };
        }
    };
}
element!(f32, 2);
element!(f64, 2);
element!(bool, 6);
element!(i8, 0);
element!(i16, 0);
element!(i32, 0);
element!(i64, 0);
element!(u8, 1);
element!(u16, 1);
element!(u32, 1);
element!(u64, 1);

/// DLPack's description of a tensor.
#[repr(C)]
pub struct DLTensor {
    pub data: *mut c_void,
    pub device: Device,
    pub ndim: i32,
    pub dtype: DataType,
    pub shape: *mut i64,
    pub strides: *mut i64,
    pub byte_offset: u64,
}
#[repr(C)]
pub struct DLManagedTensor {
    pub dl_tensor: DLTensor,
    pub manager_ctx: *mut c_void,
    pub deleter: Option<unsafe extern "C" fn(*mut DLManagedTensor)>,
}

const MOST_DIMS: usize = 8;

/// A tensor that is only read.
pub struct Tensor<'a> {
    data: *mut c_void,
    dtype: DataType,
    device: Device,
    ndim: usize,
    sizes: [i64; MOST_DIMS],
    strides: Option<[i64; MOST_DIMS]>,
    memory: PhantomData<&'a [u8]>,
}

/// A tensor that may be written.
pub struct TensorMut<'a>(Tensor<'a>, PhantomData<&'a mut [u8]>);

impl<'a> Tensor<'a> {
    /// Describes a slice, row-major. Panics unless the shape has at most 8 dimensions and as many elements as the slice.
    pub fn new<T: Element>(data: &'a [T], shape: &[i64]) -> Self {
        assert_eq!(count(shape), Some(data.len()), "the shape {:?} of a tensor of {} elements", shape, data.len());
        unsafe { Self::from_raw(data.as_ptr() as *const c_void, T::DTYPE, shape, CPU) }
    }

    /// Describes other memory, such as that of a GPU, row-major.
    ///
    /// # Safety
    /// The memory must hold the elements of the shape, and be valid as long as the tensor.
    pub unsafe fn from_raw(data: *const c_void, dtype: DataType, shape: &[i64], device: Device) -> Self {
        let mut sizes = [0; MOST_DIMS];
        sizes[..shape.len()].copy_from_slice(shape);
        Tensor { data: data as *mut c_void, dtype, device, ndim: shape.len(), sizes, strides: None, memory: PhantomData }
    }

    /// The same memory with other strides, in elements. Panics unless there is a stride for each dimension.
    ///
    /// # Safety
    /// Every element of the shape must lie in the memory.
    pub unsafe fn with_strides(mut self, strides: &[i64]) -> Self {
        assert_eq!(strides.len(), self.ndim, "the number of strides");
        let mut all = [0; MOST_DIMS];
        all[..strides.len()].copy_from_slice(strides);
        self.strides = Some(all);
        self
    }

    pub(super) fn dl(&self) -> DLTensor {
        DLTensor {
            data: self.data,
            device: self.device,
            ndim: self.ndim as i32,
            dtype: self.dtype,
            shape: self.sizes.as_ptr() as *mut i64,
            strides: self.strides.as_ref().map_or(ptr::null_mut(), |strides| strides.as_ptr() as *mut i64),
            byte_offset: 0,
        }
    }
}

impl<'a> TensorMut<'a> {
    /// Describes a slice, row-major. Panics unless the shape has at most 8 dimensions and as many elements as the slice.
    pub fn new<T: Element>(data: &'a mut [T], shape: &[i64]) -> Self {
        TensorMut(Tensor::new(data, shape), PhantomData)
    }

    /// Describes other memory, such as that of a GPU, row-major.
    ///
    /// # Safety
    /// The memory must hold the elements of the shape, be valid as long as the tensor, and be used by nothing else.
    pub unsafe fn from_raw(data: *mut c_void, dtype: DataType, shape: &[i64], device: Device) -> Self {
        TensorMut(unsafe { Tensor::from_raw(data, dtype, shape, device) }, PhantomData)
    }

    /// As for `Tensor`.
    ///
    /// # Safety
    /// Every element of the shape must lie in the memory.
    pub unsafe fn with_strides(self, strides: &[i64]) -> Self {
        TensorMut(unsafe { self.0.with_strides(strides) }, PhantomData)
    }

    pub(super) fn dl(&mut self) -> DLTensor {
        self.0.dl()
    }
}

/// The number of elements of a shape; None if a size is negative or the number does not fit.
fn count(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1usize, |count, &size| count.checked_mul(usize::try_from(size).ok()?))
}

/// A tensor that a kernel has made, with its memory.
pub struct OwnedTensor(*mut DLManagedTensor);

impl OwnedTensor {
    pub fn shape(&self) -> &[i64] {
        let dl = unsafe { &(*self.0).dl_tensor };
        unsafe { slice::from_raw_parts(dl.shape, dl.ndim as usize) }
    }
    /// The elements; None if they have another type. Kernels make row-major tensors in host memory.
    pub fn elements<T: Element>(&self) -> Option<&[T]> {
        let dl = unsafe { &(*self.0).dl_tensor };
        if dl.dtype != T::DTYPE {
            return None;
        }
        let data = (dl.data as *const u8).wrapping_add(dl.byte_offset as usize) as *const T;
        Some(unsafe { slice::from_raw_parts(data, count(self.shape()).unwrap_or(0)) })
    }
}
impl Drop for OwnedTensor {
    fn drop(&mut self) {
        if let Some(deleter) = unsafe { (*self.0).deleter } {
            unsafe { deleter(self.0) }
        }
    }
}

/// The error of a call. `code`: see `dimorph_status` of the C header, e.g. 8 for a value that was not built.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub code: i32,
    pub text: String,
}
impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}
impl std::error::Error for Error {}

pub(super) unsafe fn text_of(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    let copy = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    unsafe { free(text as *mut c_void) };
    Some(copy)
}

pub(super) fn tensor_of(tensor: *mut DLManagedTensor) -> Option<OwnedTensor> {
    if tensor.is_null() { None } else { Some(OwnedTensor(tensor)) }
}

pub(super) fn outcome(code: i32, text: *const c_char) -> Result<(), Error> {
    if code == 0 {
        return Ok(());
    }
    let text = unsafe { CStr::from_ptr(text) };
    Err(Error { code, text: text.to_string_lossy().into_owned() })
}
