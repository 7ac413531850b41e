package uploader

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/minio/crc64nvme"
)

// TestCombine cuts texts at all places, and at lengths of large files.
func TestCombine(t *testing.T) {
	content := make([]byte, 300)
	rand.NewChaCha8([32]byte{1}).Read(content)
	whole := crc64nvme.Checksum(content)
	for cut := range len(content) + 1 {
		if got := combine(crc64nvme.Checksum(content[:cut]), crc64nvme.Checksum(content[cut:]), int64(len(content)-cut)); got != whole {
			t.Errorf("cut at %d: %x, want %x", cut, got, whole)
		}
	}
	// Zeros are cheap to sum twice over: the sum of 2^40 of them is that of two
	// halves, and so on down to a length that can be summed.
	const small = 1 << 20
	sum := crc64nvme.Checksum(make([]byte, small))
	direct := crc64nvme.Checksum(make([]byte, 16*small))
	for length := int64(small); length < 1<<40; length *= 2 {
		sum = combine(sum, sum, length)
		if length*2 == 16*small && sum != direct {
			t.Errorf("of %d zeros: %x, want %x", length*2, sum, direct)
		}
	}
}

// FuzzCombine compares the sum of three parts with that of the whole.
func FuzzCombine(f *testing.F) {
	f.Add([]byte(nil), []byte(nil), []byte(nil))
	f.Add([]byte("123"), []byte("456"), []byte("789"))
	f.Add(make([]byte, 100), []byte{1}, bytes.Repeat([]byte{0xff}, 1000))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		var sum uint64
		for _, part := range [][]byte{a, b, c} {
			sum = combine(sum, crc64nvme.Checksum(part), int64(len(part)))
		}
		if want := crc64nvme.Checksum(bytes.Join([][]byte{a, b, c}, nil)); sum != want {
			t.Errorf("%x, want %x", sum, want)
		}
	})
}
