package uploader

// A CRC without its initial and final complement is the remainder of the bytes,
// read as a polynomial over the field of two elements, by a fixed one. So the
// remainder of two texts, one after the other, is that of the first times x to
// the power of the second's length in bits, plus that of the second. The
// complements cancel out.

// crcPolynomial is that of CRC-64/NVME. The highest bit is the coefficient of
// x^0, here and in all that is computed with it; x^64 is understood.
const crcPolynomial = 0x9a6c9329ac4bc9b5

// combine returns the CRC64NVME of two texts, one after the other, given those
// of each and the length of the second in bytes.
func combine(first, second uint64, length int64) uint64 {
	// x to the power of 8, 16, 32, ..., as the bits of the length need them.
	for square := uint64(1) << (63 - 8); length > 0; length >>= 1 {
		if length&1 != 0 {
			first = times(first, square)
		}
		square = times(square, square)
	}
	return first ^ second
}

// times multiplies two remainders.
func times(a, b uint64) uint64 {
	var product uint64
	for ; a != 0; a <<= 1 {
		if a>>63 != 0 {
			product ^= b
		}
		b = b>>1 ^ crcPolynomial&-(b&1)
	}
	return product
}
