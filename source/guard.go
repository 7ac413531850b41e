package source

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	freshFor = time.Second // what is known of a guarded place
	// askPatience is how long a push waits for what is known of the guarded places
	// to be fresh. They may be on a file system that hangs, as a home on a server
	// that is away: then what was known last counts, and no file of theirs can be
	// read anyway.
	askPatience = 100 * time.Millisecond
	// mostKnown is how many files and directories of a guarded place are looked at
	// to know them under other names.
	mostKnown = 2000
)

// guard has the files and directories that are never read, whatever leads there.
type guard []*place

// place is one of them. It may be a link, or come and go.
type place struct {
	path string // as it was given, clean
	find func(path string) (spot, error)
	last atomic.Pointer[spot] // nil: there has been no answer yet

	mu    sync.Mutex    // guards both below
	asked time.Time     // when the question under way began
	done  chan struct{} // closed at its end; nil: none is under way
}

// spot is what a guarded path leads to.
type spot struct {
	at   time.Time // when that was asked
	dirs []string  // paths without links; what is in one of them belongs to the place
	// files are those of the place, as far as they are known: they have other names
	// where somebody has linked or mounted them, or a directory above them.
	files map[fileID]bool
}

// fileID tells files apart, whatever their names.
type fileID struct{ device, inode uint64 }

func newGuard(paths []string) guard {
	var g guard
	for _, path := range paths {
		g = append(g, &place{path: filepath.Clean(path), find: findSpot})
	}
	for _, p := range g {
		p.ask()
	}
	return g
}

// findSpot looks a guarded path up.
func findSpot(path string) (spot, error) {
	real, err := realpath(path)
	if err != nil {
		return spot{}, err
	}
	if _, err := os.Lstat(real); err != nil { // another has just taken its place
		return spot{}, err
	}
	s := spot{dirs: []string{real}, files: make(map[fileID]bool)}
	// Kubernetes exchanges all files of a projected volume at once, by a link of
	// this name: what a path of one leads to now is one generation of many.
	dir := filepath.Dir(path)
	if link, err := os.Lstat(filepath.Join(dir, "..data")); err == nil && link.Mode().Type() == fs.ModeSymlink {
		if dir, err := realpath(dir); err == nil {
			s.dirs = append(s.dirs, dir)
		}
	}
	for _, dir := range s.dirs {
		s.note(dir, mostKnown)
	}
	return s, nil
}

// note notes the file at the path, which is no link, or the files of the
// directory there, and returns how many more may be looked at.
func (s *spot) note(path string, left int) int {
	info, err := os.Lstat(path)
	if err != nil || left == 0 {
		return left
	}
	left--
	switch {
	case info.Mode().IsRegular():
		id := identityOf(info)
		s.files[fileID{id.Device, id.Inode}] = true
	case info.IsDir() && left > 0:
		dir, err := os.Open(path)
		if err != nil {
			return left
		}
		defer dir.Close()
		entries, _ := dir.ReadDir(left)
		for _, e := range entries {
			left = s.note(filepath.Join(path, e.Name()), left)
		}
	}
	return left
}

// isFresh reports whether it is known of all what they lead to.
func (g guard) isFresh() bool {
	now := time.Now()
	for _, p := range g {
		if !p.isFresh(now) {
			return false
		}
	}
	return true
}

// refresh asks for what is not fresh, and waits a moment for the answers.
func (g guard) refresh() {
	for _, p := range g {
		p.ask()
	}
	for _, p := range g {
		p.wait()
	}
}

// given returns the place that the path lies in by the letters of both, or "".
func (g guard) given(path string) string {
	for _, p := range g {
		if within(p.path, path) {
			return p.path
		}
	}
	return ""
}

// named returns the place, as it was given, that the path without links lies in,
// or "".
func (g guard) named(path string) string {
	path = strings.TrimSuffix(path, " (deleted)") // as /proc has it once another has the name
	for _, p := range g {
		if p.has(path) {
			return p.path
		}
	}
	return ""
}

// of returns the place that the file was of, by whatever name, or nil.
func (g guard) of(id fileID) *place {
	for _, p := range g {
		if last := p.last.Load(); last != nil && last.files[id] {
			return p
		}
	}
	return nil
}

// isStill asks whether the file is of the place at this moment, which may take
// its time: the number of a file that is gone is soon another's.
func (p *place) isStill(id fileID) bool {
	now, err := p.find(p.path)
	return err != nil || now.files[id]
}

func (p *place) has(path string) bool {
	last := p.last.Load()
	return within(p.path, path) || last != nil && slices.ContainsFunc(last.dirs, func(dir string) bool { return within(dir, path) })
}

func (p *place) isFresh(now time.Time) bool {
	last := p.last.Load()
	return last != nil && now.Sub(last.at) < freshFor
}

// ask looks the place up in the background, unless what it leads to is known, or
// that is under way.
func (p *place) ask() {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil && !p.isFresh(now) {
		p.done, p.asked = make(chan struct{}), now
		go p.answer(now)
	}
}

func (p *place) answer(asked time.Time) {
	found, err := p.find(p.path)
	if last := p.last.Load(); err != nil && last != nil {
		found.dirs = last.dirs // it is not there now, and may be there again
	}
	found.at = asked
	p.last.Store(&found)
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.done)
	p.done = nil
}

// wait waits for the answer. All who do for one question have one patience
// together.
func (p *place) wait() {
	p.mu.Lock()
	done, left := p.done, askPatience-time.Since(p.asked)
	p.mu.Unlock()
	if done == nil || left <= 0 {
		return
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
