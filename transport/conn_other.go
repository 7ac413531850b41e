//go:build !linux

package transport

import (
	"net"
	"time"
)

func kernelProgress(net.Conn) (progress, bool) { return progress{}, false }

func limitSilence(net.Conn, time.Duration) {}
