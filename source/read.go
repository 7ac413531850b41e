package source

import (
	"context"
	"errors"
	"io"
	"sync"
)

// slowRead is the most that one call reads that may have to wait for a disk.
const slowRead = 256 << 10

var buffers = sync.Pool{New: func() any { return new([slowRead]byte) }}

// Reader returns a reader of the file whose reads end, with the context's
// cause, when the context does. It may be used by several goroutines at once.
// The first error that is neither the end of the file nor the context's is kept
// for Check, since those who read on our behalf report it in words of their own.
func (f *File) Reader(ctx context.Context) io.ReaderAt { return &reader{f, ctx} }

type reader struct {
	file *File
	ctx  context.Context
}

// ReadAt reads as io.ReaderAt does.
func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.file.readAt(r.ctx, p, off)
	if err != nil && err != io.EOF && (r.ctx.Err() == nil || err != context.Cause(r.ctx)) {
		first := err // its address escapes; that of err would on every call
		r.file.readErr.CompareAndSwap(nil, &first)
	}
	return n, err
}

// readAt takes what the page cache has in the caller's own goroutine, and
// waits for the rest in others.
func (f *File) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	if f.on == memory {
		return f.file.ReadAt(p, off)
	}
	n := 0
	for {
		k, err := f.readCached(p[n:], off+int64(n))
		if n += k; err != nil || n == len(p) {
			return n, err
		}
		k, err = f.readSlowly(ctx, p[n:], off+int64(n))
		if n += k; err != nil || n == len(p) {
			return n, err
		}
	}
}

// chunk is what one call has read.
type chunk struct {
	buf *[slowRead]byte
	n   int
	err error
}

func (c chunk) free() { buffers.Put(c.buf) }

// readSlowly reads once, into memory of its own: when a call returns that hung,
// the caller's has gone to other uses.
func (f *File) readSlowly(ctx context.Context, p []byte, off int64) (int, error) {
	size := min(len(p), slowRead)
	got, err := do(ctx, f.line, readPatience, func() chunk {
		buf := buffers.Get().(*[slowRead]byte)
		n, err := f.file.ReadAt(buf[:size], off)
		return chunk{buf, n, err}
	}, chunk.free)
	if crowd := (*crowdedError)(nil); err == errHangs || errors.As(err, &crowd) {
		return 0, hangs(f.line.path, err)
	}
	if err != nil {
		return 0, err
	}
	defer got.free()
	return copy(p, got.buf[:got.n]), got.err
}
