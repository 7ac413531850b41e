//go:build linux

package link

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// packetsInKernel is how many packets or bundles may wait to be read. It is
// enough for more than any window of TCP: what is dropped is dropped by the
// link, and counted.
const packetsInKernel = 1 << 15

// openTUN makes the TUN device of this namespace, with an address. Its reads and
// writes do not block.
func openTUN(addr netip.Addr) (int, error) {
	const name = "link"
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	err = makeTUN(fd, name)
	if err == nil {
		err = setUp(name, addr.AsSlice(), packetsInKernel)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make a TUN device: %w", err)
	}
	return fd, nil
}

func makeTUN(fd int, name string) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return err
	}
	return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4)
}

// setUp gives a network device of this namespace an address, unless nil, and a
// queue, unless 0, and starts it.
func setUp(name string, addr []byte, queue uint32) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set up %s: %w", name, err)
	}
	defer unix.Close(socket)
	set := func(what uint, fill func(*unix.Ifreq) error) {
		if err != nil {
			return
		}
		var request *unix.Ifreq
		if request, err = unix.NewIfreq(name); err != nil {
			return
		}
		if err = fill(request); err == nil {
			err = unix.IoctlIfreq(socket, what, request)
		}
	}
	if queue > 0 {
		set(unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) error { r.SetUint32(queue); return nil })
		set(unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(MTU); return nil })
	}
	if addr != nil {
		set(unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(addr) })
		set(unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 0}) })
	}
	set(unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil })
	if err != nil {
		return fmt.Errorf("set up the network device %s: %w", name, err)
	}
	return nil
}
