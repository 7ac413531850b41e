//go:build linux

package link

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// A made bundle has this many bytes of TCP options, sequence number and ID.
const (
	testOptions  = 12
	testSequence = 0xffff_f000 // soon to begin again at 0
	testID       = 0xfffe
	testHeaders  = vnetSize + 20 + 20 + testOptions
)

// makeBundle returns a bundle of TCP segments with these bytes.
func makeBundle(payload []byte, segment int) []byte {
	b := make([]byte, testHeaders, testHeaders+len(payload))
	b[vnetFlags], b[vnetGSOType] = needsChecksum, gsoTCP4
	binary.NativeEndian.PutUint16(b[vnetHeaderSize:], uint16(len(b)+100)) // the kernel's is no less, but may be more
	binary.NativeEndian.PutUint16(b[vnetGSOSize:], uint16(segment))
	ip := b[vnetSize:]
	ip[0], ip[ipProtocol] = 0x45, protocolTCP
	binary.BigEndian.PutUint16(ip[ipLength:], uint16(len(ip)+len(payload)))
	binary.BigEndian.PutUint16(ip[ipID:], testID)
	tcp := ip[20:]
	binary.BigEndian.PutUint32(tcp[tcpSequence:], testSequence)
	tcp[tcpOffset] = (20 + testOptions) / 4 << 4
	tcp[tcpFlags] = flagCWR | flagPSH | flagFIN
	return append(b, payload...)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

func TestBundle(t *testing.T) {
	const segment = 1448
	payload := randomBytes(5*segment + 100)
	b, err := parseBundle(makeBundle(payload, segment))
	if err != nil {
		t.Fatal(err)
	}
	if b.segments != 6 || b.size(0) != MTU || b.size(5) != 52+100 {
		t.Fatalf("%d segments, of %d to %d bytes", b.segments, b.size(0), b.size(5))
	}
	for _, test := range []struct {
		first, end int
		gso        byte
		flags      byte
	}{
		{0, 6, gsoTCP4, flagCWR | flagPSH | flagFIN},
		{0, 2, gsoTCP4, flagCWR},
		{2, 5, gsoTCP4, 0},
		{1, 2, gsoNone, 0},
		{4, 6, gsoTCP4, flagPSH | flagFIN},
		{5, 6, gsoNone, flagPSH | flagFIN},
	} {
		got := make([]byte, b.length(test.first, test.end))
		b.write(got, test.first, test.end)
		want := payload[test.first*segment : min(test.end*segment, len(payload))]
		ip := got[vnetSize:]
		tcp := ip[20:]
		if !bytes.Equal(got[testHeaders:], want) {
			t.Errorf("%v: other bytes", test)
		}
		if got[vnetFlags] != needsChecksum || got[vnetGSOType] != test.gso {
			t.Errorf("%v: flags %d, type %d", test, got[vnetFlags], got[vnetGSOType])
		}
		if size := binary.NativeEndian.Uint16(got[vnetGSOSize:]); (size == 0) != (test.gso == gsoNone) {
			t.Errorf("%v: segments of %d bytes", test, size)
		}
		if length := binary.BigEndian.Uint16(ip[ipLength:]); int(length) != len(ip) {
			t.Errorf("%v: length %d of an IP packet of %d bytes", test, length, len(ip))
		}
		if id := binary.BigEndian.Uint16(ip[ipID:]); id != uint16(testID+test.first) {
			t.Errorf("%v: IP packet %d", test, id)
		}
		if sum := checksum(ip[:20]); sum != 0 {
			t.Errorf("%v: the checksum of the IP header is off by %x", test, sum)
		}
		if s := binary.BigEndian.Uint32(tcp[tcpSequence:]); s != testSequence+uint32(test.first*segment) {
			t.Errorf("%v: sequence number %d", test, s)
		}
		if tcp[tcpFlags] != test.flags {
			t.Errorf("%v: TCP flags %x", test, tcp[tcpFlags])
		}
	}
}

// TestSend has some segments of a bundle dropped and looks at what is left.
func TestSend(t *testing.T) {
	const segment, segments = 1000, 40
	payload := randomBytes(segment * segments)
	for _, test := range []struct {
		name  string
		shape Shape
		left  int // segments that must arrive; -1: some
	}{
		{"none dropped", Shape{Rate: 1e6}, segments},
		{"the end dropped", Shape{Rate: 8e6, Queue: 20 * time.Millisecond}, 19}, // of 1052 bytes each
		{"any lost", Shape{Loss: 0.3}, -1},
		{"all lost", Shape{Loss: 1}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := parseBundle(makeBundle(payload, segment))
			if err != nil {
				t.Fatal(err)
			}
			w := &way{line: newLine(test.shape, 0)}
			w.send(0, b)
			c := w.counts()
			left := int(c.Packets - c.Overflows - c.Losses)
			if c.Packets != segments || test.left >= 0 && left != test.left {
				t.Errorf("%+v", c)
			}
			arrived, last := 0, -1
			var due time.Duration
			for {
				p, ok := w.queue.first()
				if !ok {
					break
				}
				at := int(binary.BigEndian.Uint32(p.data[vnetSize+20+tcpSequence:])-testSequence) / segment
				n := (len(p.data) - testHeaders) / segment
				if at <= last || n > maxBundle || p.due < due {
					t.Errorf("%d segments from %d on at %v, after %d and %v", n, at, p.due, last, due)
				}
				if !bytes.Equal(p.data[testHeaders:], payload[at*segment:(at+n)*segment]) {
					t.Errorf("other bytes from segment %d on", at)
				}
				arrived, last, due = arrived+n, at+n-1, p.due
				w.queue.drop()
			}
			if arrived != left {
				t.Errorf("%d segments arrived, not %d", arrived, left)
			}
		})
	}
}

func FuzzParseBundle(f *testing.F) {
	f.Add(makeBundle(randomBytes(3000), 1448))
	f.Add(make([]byte, vnetSize))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseBundle(data)
		if err != nil || len(data) > vnetSize+1<<16 {
			return
		}
		w := &way{line: newLine(Shape{Loss: 0.1}, 0)}
		w.send(0, b)
		for {
			p, ok := w.queue.first()
			if !ok {
				return
			}
			if len(p.data) > len(data) {
				t.Errorf("%d bytes became %d", len(data), len(p.data))
			}
			w.queue.drop()
		}
	})
}
