// Package content makes the bytes of test files: a name and a size decide them,
// so that whoever knows these two can tell whether an object is right, without
// the file, on another host, and after the pod that wrote it is gone.
package content

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
)

// Reader returns the bytes of the file of that name and size. No two names
// share any stretch of them, nor do they compress.
func Reader(name string, size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8(sha256.Sum256([]byte(name))), size)
}

// Digest returns the SHA-256 of those bytes, in hexadecimal digits.
func Digest(name string, size int64) string {
	sum := sha256.New()
	if _, err := io.Copy(sum, Reader(name, size)); err != nil {
		panic(err) // neither end can fail
	}
	return hex.EncodeToString(sum.Sum(nil))
}
