package journal

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var powerStep = flag.Int("power-step", 12, "TestPowerLoss looks at one moment in this many, but at all before the first push")

// TestPowerLoss records all that a process writes and syncs, and then looks at
// what a loss of power could have left on disk at many moments: what was synced,
// and of the rest any part, in sectors. From each such disk the journal must
// open as it is, with all that the process had said was on disk by then.
func TestPowerLoss(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed, which records the system calls")
	}
	base := t.TempDir()
	trace := filepath.Join(base, "trace")
	cmd := exec.Command(strace, "-f", "-qq", "-xx", "-s", "10000000", "-o", trace,
		"-e", "trace=openat,close,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,mkdirat,unlinkat", os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+filepath.Join(base, "disk", "a", "b"), childMost+"=40")
	if err := os.Mkdir(filepath.Join(base, "disk"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("strace does not work here: %v\n%s", err, out)
	}
	calls := readTrace(t, trace)
	disk := newDisk(filepath.Join(base, "disk"))
	rng := rand.New(rand.NewPCG(9, 10))
	said := make(acknowledged)
	cuts, first := 0, true
	for i, c := range calls {
		if line, ok := disk.do(c); ok {
			if err := said.heed(line); err != nil {
				t.Fatal(err)
			}
			first = false
		}
		// All moments before the first push, and then some.
		if !first && rng.IntN(*powerStep) != 0 {
			continue
		}
		for range 1 {
			cuts++
			image := filepath.Join(base, fmt.Sprint("image", cuts))
			disk.lose(t, rng, image)
			j, err := Open(t.Context(), Config{Dir: filepath.Join(image, "a", "b")})
			if err != nil {
				t.Fatalf("after call %d of %d, %s: %v", i, len(calls), c.name, err)
			}
			if j.MovedAside() != "" {
				t.Errorf("after call %d of %d, %s: the journal cannot be read", i, len(calls), c.name)
			}
			if err := said.check(j); err != nil {
				t.Errorf("after call %d of %d, %s: %v", i, len(calls), c.name, err)
			}
			if err := j.Close(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				return // the image is worth a look
			}
			if err := os.RemoveAll(image); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d calls, %d pushes, %d moments", len(calls), len(said), cuts)
	if len(said) < 40 || cuts < 60 {
		t.Errorf("%d pushes and %d moments are too few", len(said), cuts)
	}
}

// call is a system call that succeeded.
type call struct {
	name   string
	args   string
	result int
}

var (
	callLine   = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (-?\d+)`)
	unfinished = regexp.MustCompile(`^(\d+) +(\w+\(.*) <unfinished \.\.\.>$`)
	resumed    = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
)

// readTrace returns the calls in the order in which they returned. The journal
// makes its own one after the other.
func readTrace(t *testing.T, path string) []call {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var calls []call
	begun := make(map[string]string)
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, len(b)+1)
	for lines.Scan() {
		line := lines.Text()
		if m := unfinished.FindStringSubmatch(line); m != nil {
			begun[m[1]] = m[1] + " " + m[2]
			continue
		}
		if m := resumed.FindStringSubmatch(line); m != nil {
			line = begun[m[1]] + m[2]
		}
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue // it failed, or is the end of the process
		}
		result, err := strconv.Atoi(m[4])
		if err != nil || result < 0 {
			continue
		}
		calls = append(calls, call{name: m[2], args: m[3], result: result})
	}
	return calls
}

// arg returns an argument.
func (c call) arg(i int) string { return strings.Split(c.args, ", ")[i] }

func (c call) number(i int) int {
	n, err := strconv.Atoi(c.arg(i))
	if err != nil {
		return -1 // AT_FDCWD
	}
	return n
}

// text returns an argument that is text.
func (c call) text(i int) []byte {
	s := strings.ReplaceAll(strings.Trim(c.arg(i), `"`), `\x`, "")
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// disk is what is on a disk, as far as the calls before say so.
type disk struct {
	root string
	open map[int]*node // by descriptor
	top  *node
}

// node is a file or a directory, with what was done to it since its last sync.
type node struct {
	data  []byte                                     // of a file, on disk
	names map[string]*node                           // of a directory, on disk; nil for a file
	later []func(n *node, part func([]byte, []byte)) // not on disk yet, in order
	now   map[string]*node                           // of a directory, as processes see it
}

func newDir() *node { return &node{names: map[string]*node{}, now: map[string]*node{}} }

func newDisk(root string) *disk { return &disk{root: root, open: map[int]*node{}, top: newDir()} }

// find returns the directory that a path is in, and its name there; nil if it
// is elsewhere.
func (d *disk) find(path string) (*node, string) {
	if path == d.root {
		return d.top, ""
	}
	rest, ok := strings.CutPrefix(path, d.root+"/")
	if !ok {
		return nil, ""
	}
	parts := strings.Split(rest, "/")
	dir := d.top
	for _, name := range parts[:len(parts)-1] {
		if dir = dir.now[name]; dir == nil {
			return nil, ""
		}
	}
	return dir, parts[len(parts)-1]
}

// name gives a name in a directory to a node, or to none.
func (n *node) name(name string, to *node) {
	set := func(names map[string]*node) {
		if to == nil {
			delete(names, name)
		} else {
			names[name] = to
		}
	}
	set(n.now)
	n.later = append(n.later, func(n *node, _ func([]byte, []byte)) { set(n.names) })
}

// do makes a call, and returns the line if it is one of the process's own.
func (d *disk) do(c call) (line string, said bool) {
	switch c.name {
	case "openat":
		dir, name := d.find(string(c.text(1)))
		delete(d.open, c.result)
		if dir == nil {
			return "", false
		}
		n := dir
		if name != "" {
			n = dir.now[name]
		}
		if n == nil {
			n = &node{}
			dir.name(name, n)
		}
		d.open[c.result] = n
	case "close":
		delete(d.open, c.number(0))
	case "mkdirat":
		if dir, name := d.find(string(c.text(1))); dir != nil {
			dir.name(name, newDir())
		}
	case "renameat":
		from, old := d.find(string(c.text(1)))
		to, name := d.find(string(c.text(3)))
		if from != nil && to != nil {
			n := from.now[old]
			from.name(old, nil)
			to.name(name, n)
		}
	case "write":
		if c.number(0) == 1 {
			return strings.TrimSuffix(string(c.text(1)), "\n"), true
		}
	case "pwrite64":
		if n := d.open[c.number(0)]; n != nil {
			b, at := c.text(1), c.number(3)
			n.later = append(n.later, func(n *node, part func(to, from []byte)) {
				if short := at + len(b) - len(n.data); short > 0 {
					n.data = append(n.data, make([]byte, short)...)
				}
				part(n.data[at:], b)
			})
		}
	case "ftruncate":
		if n := d.open[c.number(0)]; n != nil {
			size := c.number(1)
			n.later = append(n.later, func(n *node, _ func([]byte, []byte)) {
				n.data = append(n.data[:min(size, len(n.data))], make([]byte, max(0, size-len(n.data)))...)
			})
		}
	case "fsync", "fdatasync":
		if n := d.open[c.number(0)]; n != nil {
			for _, do := range n.later {
				do(n, func(to, from []byte) { copy(to, from) })
			}
			n.later = nil
		}
	default:
		for _, i := range []int{0, 1} {
			if strings.HasPrefix(c.arg(i), `"`) && strings.HasPrefix(string(c.text(i)), d.root) {
				panic("the journal calls " + c.name + ", of which this test knows nothing")
			}
		}
	}
	return "", false
}

// lose makes a directory with what a loss of power may leave.
func (d *disk) lose(t *testing.T, rng *rand.Rand, to string) {
	t.Helper()
	lose(t, rng, d.top, to)
}

func lose(t *testing.T, rng *rand.Rand, n *node, to string) {
	t.Helper()
	left := &node{data: bytes.Clone(n.data)}
	if n.names != nil {
		left.names = make(map[string]*node)
		for name, of := range n.names {
			left.names[name] = of
		}
		// A file system keeps the order of changes to names.
		for _, do := range n.later[:rng.IntN(len(n.later)+1)] {
			do(left, nil)
		}
		if err := os.Mkdir(to, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, of := range left.names {
			lose(t, rng, of, filepath.Join(to, name))
		}
		return
	}
	kind := rng.IntN(4) // all of them, none, whole ones, sectors
	for _, do := range n.later {
		if kind == 1 || kind == 2 && rng.IntN(2) == 0 {
			continue
		}
		do(left, func(to, from []byte) {
			for at := 0; at < len(from); at += 512 {
				if kind != 3 || rng.IntN(2) == 0 {
					copy(to[at:], from[at:min(at+512, len(from))])
				}
			}
		})
	}
	if err := os.WriteFile(to, bytes.TrimRight(left.data, "\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(to, int64(len(left.data))); err != nil {
		t.Fatal(err)
	}
}
