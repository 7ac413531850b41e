//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// operations are the requests of the kernel that this server knows, by their
// numbers in the FUSE protocol.
var operations = map[uint32]string{
	1: "lookup", 3: "getattr", 14: "open", 15: "read", 17: "statfs", 18: "release", 20: "fsync", 25: "flush", 26: "init",
}

// Requests that get no answer.
const (
	forget      = 2
	interrupt   = 36
	batchForget = 42
)

const (
	rootNode = 1
	// parallelLookups has one that hangs not hold up the others of a directory.
	parallelLookups = 1 << 18
	inHeader        = 40       // bytes before a request's own
	mostWrite       = 64 << 10 // there are no writes, but the kernel wants to know
	bufferSize      = mostWrite + 4096
)

// server answers the kernel's requests out of a directory.
type server struct {
	device int
	dir    string
	gate   *gate

	mu    sync.Mutex
	known map[key]uint64 // guarded by mu
	nodes []node         // by number, from rootNode+1; never forgotten. Guarded by mu
}

// node is a file that the kernel has heard of. It is held by its descriptor, so
// that it can be read when its name is gone.
type node struct {
	name string
	fd   int // of O_PATH
}

// key tells the files of one name apart.
type key struct {
	name  string
	inode uint64
}

func newServer(device int, dir string, g *gate) *server {
	return &server{device: device, dir: dir, gate: g, known: make(map[key]uint64)}
}

// request is one of the kernel.
type request struct {
	operation uint32
	unique    uint64
	node      uint64
	body      []byte
}

// serve answers requests until the file system is unmounted. Each has a
// goroutine, so that one that hangs holds up no other.
func (s *server) serve() {
	for {
		buf := make([]byte, bufferSize)
		n, err := unix.Read(s.device, buf)
		switch {
		case err == unix.EINTR, err == unix.EAGAIN, err == unix.ENOENT:
			continue
		case err != nil || n < inHeader:
			return
		}
		r := request{
			operation: binary.NativeEndian.Uint32(buf[4:]), unique: binary.NativeEndian.Uint64(buf[8:]),
			node: binary.NativeEndian.Uint64(buf[16:]), body: buf[inHeader:n],
		}
		switch r.operation {
		case forget, interrupt, batchForget:
		default:
			go s.answer(r)
		}
	}
}

func (s *server) answer(r request) {
	var out any
	var err error = unix.ENOSYS
	if name, known := operations[r.operation]; known {
		if s.gate.pass(name, s.about(r)) {
			err = unix.EIO
		} else {
			out, err = s.do(name, r)
		}
	}
	var body bytes.Buffer
	if err == nil && out != nil {
		binary.Write(&body, binary.NativeEndian, out)
	}
	errno, _ := err.(unix.Errno)
	answer := binary.NativeEndian.AppendUint32(nil, uint32(16+body.Len()))
	answer = binary.NativeEndian.AppendUint32(answer, uint32(-int32(errno)))
	answer = binary.NativeEndian.AppendUint64(answer, r.unique)
	unix.Write(s.device, append(answer, body.Bytes()...))
}

// about returns the name of the file that a request is about.
func (s *server) about(r request) string {
	if r.operation == 1 {
		return string(bytes.TrimRight(r.body, "\x00"))
	}
	return s.name(r.node)
}

func (s *server) name(number uint64) string { return s.node(number).name }

// node returns the root directory for what is not known.
func (s *server) node(number uint64) node {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := int(number) - rootNode - 1; i >= 0 && i < len(s.nodes) {
		return s.nodes[i]
	}
	return node{fd: -1}
}

// lookup finds the file of a name.
func (s *server) lookup(name string) (entryOut, error) {
	fd, err := unix.Open(filepath.Join(s.dir, name), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return entryOut{}, err
	}
	attr, err := s.attributes(node{fd: fd})
	if err != nil {
		unix.Close(fd)
		return entryOut{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{name, attr.Inode}
	if s.known[k] != 0 {
		unix.Close(fd)
	} else {
		s.nodes = append(s.nodes, node{name, fd})
		s.known[k] = uint64(len(s.nodes)) + rootNode
	}
	return entryOut{Node: s.known[k], Attr: attr}, nil
}

// The structures of the protocol, with their padding.
type (
	attributes struct {
		Inode, Size, Blocks                       uint64
		Atime, Mtime, Ctime                       uint64
		AtimeNsec, MtimeNsec, CtimeNsec           uint32
		Mode, Links, User, Group, Rdev, BlockSize uint32
		Flags                                     uint32
	}
	entryOut struct {
		Node, Generation, EntryValid, AttrValid uint64 // valid for no time at all: everything is asked for anew
		EntryValidNsec, AttrValidNsec           uint32
		Attr                                    attributes
	}
	attrOut struct {
		Valid        uint64
		ValidNsec, _ uint32
		Attr         attributes
	}
	openOut struct {
		Handle   uint64
		Flags, _ uint32
	}
	initOut struct {
		Major, Minor, MaxReadahead, Flags uint32
		MaxBackground, Congestion         uint16
		MaxWrite, TimeGranularity         uint32
		_                                 [9]uint32
	}
	statfsOut struct {
		Blocks, Free, Available, Files, FreeFiles uint64
		BlockSize, NameLength, FragmentSize       uint32
		_                                         [7]uint32
	}
)

func (s *server) do(operation string, r request) (any, error) {
	switch operation {
	case "init":
		return initOut{Major: 7, Minor: 31, MaxReadahead: 128 << 10, Flags: parallelLookups, MaxBackground: 512, Congestion: 512, MaxWrite: mostWrite, TimeGranularity: 1}, nil
	case "lookup":
		return s.lookup(s.about(r))
	case "getattr":
		attr, err := s.attributes(s.node(r.node))
		return attrOut{Attr: attr}, err
	case "open":
		return openOut{}, nil
	case "read":
		return s.read(s.node(r.node), int64(binary.NativeEndian.Uint64(r.body[8:])), int(binary.NativeEndian.Uint32(r.body[16:])))
	case "statfs":
		return statfsOut{BlockSize: 4096, NameLength: 255, FragmentSize: 4096}, nil
	}
	return nil, nil
}

func (s *server) attributes(n node) (attributes, error) {
	var st unix.Stat_t
	err := unix.Fstat(n.fd, &st)
	if n.fd < 0 {
		err = unix.Stat(s.dir, &st)
	}
	return attributes{
		Inode: st.Ino, Size: uint64(st.Size), Blocks: uint64(st.Blocks), Mode: st.Mode, Links: uint32(st.Nlink), BlockSize: 4096,
		Mtime: uint64(st.Mtim.Sec), MtimeNsec: uint32(st.Mtim.Nsec), Ctime: uint64(st.Ctim.Sec), CtimeNsec: uint32(st.Ctim.Nsec),
	}, err
}

func (s *server) read(from node, at int64, size int) ([]byte, error) {
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(from.fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, size)
	n, err := unix.Pread(fd, buf, at)
	return buf[:max(n, 0)], err
}
