//go:build !linux

package source

// readCached reads nothing: only Linux can be asked not to wait.
func (f *File) readCached(p []byte, off int64) (int, error) { return 0, nil }

// keepsName knows nothing, for the same reason.
func (f *File) keepsName() bool { return false }
