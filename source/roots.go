package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	mostLinks = 40  // that one path may lead through, as the kernel has it
	mostSteps = 256 // that one path may take name by name, each of which looks at all directories above
	mostTries = 8   // to take hold of a file while somebody changes what leads to it
)

var (
	// errOutside is of a path that leads out of the roots.
	errOutside = errors.New("outside of the roots")
	// errMoved is of a path on which there is a link where there was none.
	errMoved = errors.New("the path changes")
)

// beneath returns the names that are left of the path below the directory, a
// clean absolute path. It is not beneath where its names do not begin with the
// directory's own, or where .. leads above that, be it only to come back: what
// lies elsewhere is not even walked through.
func beneath(dir, path string) (names []string, ok bool) {
	if names, ok = below(dir, path); !ok || dir == "/" {
		return names, ok
	}
	depth := 0
	for _, name := range names {
		switch name {
		case "", ".":
		case "..":
			depth--
		default:
			depth++
		}
		if depth < 0 {
			return nil, false
		}
	}
	return names, true
}

// below is beneath, wherever .. leads.
func below(dir, path string) (names []string, ok bool) {
	names = split(path)
	if dir == "/" {
		return names, true
	}
	for _, want := range split(dir) {
		for len(names) > 0 && (names[0] == "" || names[0] == ".") {
			names = names[1:]
		}
		if len(names) == 0 || names[0] != want {
			return nil, false
		}
		names = names[1:]
	}
	return names, true
}

// split returns the names of an absolute path.
func split(path string) []string { return strings.Split(path, "/")[1:] }

// within reports whether the clean path is the directory or lies in it.
func within(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// plain reports whether the names are all of what is in a directory.
func plain(names []string) bool {
	return len(names) > 0 && !slices.ContainsFunc(names, func(name string) bool { return name == "" || name == "." || name == ".." })
}

// root is one of the roots, as it is at this moment: a mount may come later, and
// a link may lead elsewhere tomorrow.
type root struct {
	*os.Root
	real string // its path without links
}

// view is what one path meets of the roots.
type view struct {
	opener *Opener
	path   string
	open   []*root // of opener.roots; nil: not opened yet
}

func (o *Opener) view(path string) *view {
	return &view{opener: o, path: path, open: make([]*root, len(o.roots))}
}

func (v *view) close() {
	for _, r := range v.open {
		if r != nil {
			r.Close()
		}
	}
}

// root opens one of the roots.
func (v *view) root(i int) (*root, error) {
	if v.open[i] != nil {
		return v.open[i], nil
	}
	dir, err := os.OpenRoot(v.opener.roots[i])
	if err != nil {
		return nil, err
	}
	v.open[i] = &root{Root: dir}
	return v.open[i], nil
}

// reals has do look at each root and its path without links, until that returns
// true. It opens those that are not open yet, some of which may hang.
func (v *view) reals(do func(r *root) bool) bool {
	for i := range v.open {
		if r, err := v.root(i); err == nil && r.resolve() == nil && do(r) {
			return true
		}
	}
	return false
}

func (r *root) resolve() (err error) {
	if r.real == "" {
		r.real, err = realpath(r.Name())
	}
	return err
}

// take takes hold of what the path leads to, and returns where that is: a root,
// and the names below it. Whatever anybody changes meanwhile, it is beneath a
// root: os.Root steps from directory to directory, and out of none. It knows no
// absolute links, so where it fails its way is resolved first; see trail.
func (v *view) take(hold func(r *os.Root, name string) (*os.File, error)) (*os.File, error) {
	r, names, err := v.enter()
	if err != nil {
		return nil, err
	}
	if plain(names) {
		if f, err := hold(r.Root, strings.Join(names, "/")); err == nil {
			return f, nil
		}
	}
	for range mostTries {
		var name string
		var f *os.File
		t := trail{view: v, root: r, names: names}
		if name, err = t.follow(); err == errMoved {
			continue
		} else if err != nil {
			return nil, err
		}
		if f, err = hold(t.root.Root, name); err == nil {
			return f, nil
		}
	}
	return nil, settled(err)
}

// settled returns the error of os.Root for a name without links, or errMoved if
// that says that the name is none any more: one on the way leads out (an error
// without a number), or what was a link is not.
func settled(err error) error {
	if errno, is := errors.AsType[syscall.Errno](err); is && errno != syscall.EINVAL {
		return err
	}
	return errMoved
}

// enter opens the outermost root that the path is beneath of those that can be,
// and returns the names below it.
func (v *view) enter() (*root, []string, error) {
	err := errOutside
	for i, dir := range v.opener.roots {
		names, ok := beneath(dir, v.path)
		if !ok {
			continue
		}
		r, openErr := v.root(i)
		if openErr == nil {
			return r, names, nil
		}
		if err == errOutside {
			err = openErr
		}
	}
	return nil, nil, err
}

// trail follows a path through links, name by name. It ends where it leaves the
// roots: neither what is there, nor whether anything is, makes a difference to
// its error then. A link that leaves them only to come back is no exception,
// but for directories above a root, which are known to be there, and other
// names of a root that are links in these.
type trail struct {
	*view
	root  *root    // that it is in
	at    []string // where it is below that: names without links
	names []string // that are left
	links int      // followed
	steps int      // taken
}

// follow returns the name, below t.root and without links, of what is at the
// end. That may have changed by then.
func (t *trail) follow() (string, error) {
	dir := true // what is at t.at is one
	for t.walks() {
		if len(t.names) == 0 {
			return t.name(), nil
		}
		if !dir {
			return "", syscall.ENOTDIR
		}
		name := t.names[0]
		t.names = t.names[1:]
		var err error
		switch {
		case name == "" || name == ".":
		case name == ".." && len(t.at) > 0:
			t.at = t.at[:len(t.at)-1]
		case name == "..":
			if err = t.root.resolve(); err == nil {
				err = t.comeBack(filepath.Dir(t.root.real))
			}
		default:
			dir, err = t.step(name)
		}
		if err != nil {
			return "", err
		}
	}
	return "", syscall.ELOOP
}

// walks reports whether one more step may be taken.
func (t *trail) walks() bool {
	t.steps++
	return t.steps <= mostSteps
}

func (t *trail) name() string {
	if len(t.at) == 0 {
		return "."
	}
	return strings.Join(t.at, "/")
}

// step goes to what has the name in the directory, or to where that leads if it
// is a link, and reports whether it is a directory then.
func (t *trail) step(name string) (dir bool, err error) {
	at := append(slices.Clip(t.at), name)
	below := strings.Join(at, "/")
	if err := t.root.resolve(); err != nil {
		return false, err
	}
	if err := t.opener.never(t.path, filepath.Join(t.root.real, below)); err != nil {
		return false, err
	}
	info, err := t.root.Lstat(below)
	if err != nil {
		return false, settled(err)
	}
	if info.Mode().Type() != fs.ModeSymlink {
		t.at = at
		return info.IsDir(), nil
	}
	target, err := t.root.Readlink(below)
	if err != nil {
		return false, settled(err)
	}
	if absolute, err := t.link(target); err != nil || !absolute {
		return true, err
	}
	return true, t.comeBack("/")
}

// link puts the target of a link before the names that are left.
func (t *trail) link(target string) (absolute bool, err error) {
	if t.links++; t.links > mostLinks {
		return false, syscall.ELOOP
	}
	rest, absolute := strings.CutPrefix(target, "/")
	t.names = append(strings.Split(rest, "/"), t.names...)
	return absolute, nil
}

// comeBack goes from a directory above a root back into one.
func (t *trail) comeBack(at string) error {
	for t.walks() {
		if t.enterBy(strings.TrimSuffix(at, "/") + "/" + strings.Join(t.names, "/")) {
			return nil
		}
		if len(t.names) == 0 {
			return errOutside
		}
		name := t.names[0]
		t.names = t.names[1:]
		next := filepath.Join(at, name)
		if name != "" && name != "." && name != ".." { // which are what Join makes of them, since at has no links
			target, err := os.Readlink(next)
			if err == nil {
				next = at
				if absolute, err := t.link(target); err != nil {
					return errOutside
				} else if absolute {
					next = "/"
				}
			} else if !t.reals(func(r *root) bool { return within(next, r.real) }) {
				return errOutside
			}
		}
		at = next
	}
	return errOutside
}

// enterBy enters the root that the path begins with, be it as it was given or
// without links.
func (t *trail) enterBy(path string) bool {
	for i, dir := range t.opener.roots {
		if names, ok := below(dir, path); ok {
			if r, err := t.view.root(i); err == nil {
				t.root, t.at, t.names = r, nil, names
				return true
			}
		}
	}
	return t.reals(func(r *root) bool {
		names, ok := below(r.real, path)
		if ok {
			t.root, t.at, t.names = r, nil, names
		}
		return ok
	})
}
