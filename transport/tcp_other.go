//go:build !linux

package transport

import (
	"net"
	"syscall"
	"time"
)

func tryOut(string) (TCP, sendBuffer) { return TCP{}, sendBuffer{} }

func prepare(syscall.RawConn, string, sendBuffer) {}

func kernelInfo(net.Conn, traits) (Info, bool) { return Info{}, false }

func restart(net.Conn) bool { return false }

func limitRate(net.Conn, float64) {}

func limitSilence(net.Conn, time.Duration) {}

func algorithmOf(net.Conn) string { return "" }
