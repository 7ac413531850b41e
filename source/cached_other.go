//go:build !linux

package source

// readCached reads nothing: only Linux can be asked not to wait.
func (f *File) readCached(p []byte, off int64) (int, error) { return 0, nil }

// openCached opens nothing, for the same reason.
func (o *Opener) openCached(path string) (found, bool) { return found{}, false }

// keepsName knows nothing, for the same reason.
func (f *File) keepsName() bool { return false }
