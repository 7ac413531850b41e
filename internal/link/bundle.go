//go:build linux

package link

import (
	"encoding/binary"
	"errors"
)

// The header that a TUN device with IFF_VNET_HDR puts before each packet
// (struct virtio_net_hdr), in the host's byte order.
const (
	vnetSize = 10

	vnetFlags      = 0
	vnetGSOType    = 1
	vnetHeaderSize = 2
	vnetGSOSize    = 4

	needsChecksum = 1 // in the flags
	gsoNone       = 0
	gsoTCP4       = 1
)

// Places in an IPv4 and in a TCP header.
const (
	ipLength   = 2
	ipID       = 4
	ipProtocol = 9
	ipChecksum = 10

	tcpSequence = 4
	tcpOffset   = 12
	tcpFlags    = 13

	flagFIN = 0x01
	flagPSH = 0x08
	flagCWR = 0x80

	protocolTCP = 6
)

var errBundle = errors.New("the bundle of segments is not TCP over IPv4 in good form")

// A bundle is what a TUN device hands over at once: a packet, or TCP segments
// that have yet to be cut (TSO), with the header that says so before it.
type bundle struct {
	data     []byte
	headers  int // bytes before the payload: those of the device, of IP and of TCP
	ip       int // bytes of the IP header
	segment  int // bytes of payload in each segment, but the last
	segments int // 1: data is a packet that goes as it is
}

func parseBundle(data []byte) (bundle, error) {
	if len(data) < vnetSize {
		return bundle{}, errBundle
	}
	if data[vnetGSOType] == gsoNone {
		return bundle{data: data, headers: vnetSize, segments: 1}, nil
	}
	packet := data[vnetSize:]
	if data[vnetGSOType] != gsoTCP4 || len(packet) < 40 || packet[0]>>4 != 4 || packet[ipProtocol] != protocolTCP {
		return bundle{}, errBundle
	}
	ip := int(packet[0]&0xf) * 4
	if len(packet) < ip+20 {
		return bundle{}, errBundle
	}
	headers := vnetSize + ip + int(packet[ip+tcpOffset]>>4)*4
	segment := int(binary.NativeEndian.Uint16(data[vnetGSOSize:]))
	if len(data) <= headers || segment == 0 {
		return bundle{}, errBundle
	}
	return bundle{
		data:     data,
		headers:  headers,
		ip:       ip,
		segment:  segment,
		segments: (len(data) - headers + segment - 1) / segment,
	}, nil
}

// size returns the bytes of the i-th segment as an IP packet.
func (b bundle) size(i int) int {
	return b.headers - vnetSize + len(b.payload(i, i+1))
}

// payload returns what the segments from first to before end carry.
func (b bundle) payload(first, end int) []byte {
	payload := b.data[b.headers:]
	if b.segments == 1 {
		return payload
	}
	return payload[first*b.segment : min(end*b.segment, len(payload))]
}

// length returns how long the bundle of the segments from first to before end
// is, with its headers.
func (b bundle) length(first, end int) int {
	return b.headers + len(b.payload(first, end))
}

// write puts the bundle of the segments from first to before end into to,
// which has that length. The checksum of TCP is left to be, as it was: the
// kernel on the other side trusts its own host.
func (b bundle) write(to []byte, first, end int) {
	copy(to, b.data[:b.headers])
	copy(to[b.headers:], b.payload(first, end))
	if b.segments == 1 {
		return
	}
	binary.NativeEndian.PutUint16(to[vnetHeaderSize:], uint16(b.headers-vnetSize))
	if end-first == 1 {
		to[vnetGSOType] = gsoNone
		binary.NativeEndian.PutUint16(to[vnetGSOSize:], 0)
	}
	ip, tcp := to[vnetSize:vnetSize+b.ip], to[vnetSize+b.ip:]
	binary.BigEndian.PutUint16(ip[ipLength:], uint16(len(to)-vnetSize))
	binary.BigEndian.PutUint16(ip[ipID:], binary.BigEndian.Uint16(ip[ipID:])+uint16(first))
	binary.BigEndian.PutUint16(ip[ipChecksum:], 0)
	binary.BigEndian.PutUint16(ip[ipChecksum:], checksum(ip))
	sequence := binary.BigEndian.Uint32(tcp[tcpSequence:])
	binary.BigEndian.PutUint32(tcp[tcpSequence:], sequence+uint32(first*b.segment))
	if first > 0 {
		tcp[tcpFlags] &^= flagCWR
	}
	if end < b.segments {
		tcp[tcpFlags] &^= flagFIN | flagPSH
	}
}

// checksum is that of the Internet protocols, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
