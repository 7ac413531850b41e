//go:build !linux

package transport

import (
	"net"
	"syscall"
	"time"
)

func kernelInfo(net.Conn, traits) (Info, bool) { return Info{}, false }

func limitSilence(net.Conn, time.Duration) {}

func setCongestion(int, string) error { return syscall.ENOTSUP }

func traitsOf(net.Conn) traits { return traits{} }

func controlRaw(syscall.RawConn, func(fd int)) {}
