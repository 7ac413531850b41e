//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// hostVariables are those of the kernel that no network namespace has for
// itself. One that is empty stays as it is.
type hostVariables struct {
	allowed    string // congestion controls for those without privileges
	sendBuffer string // most bytes that they may ask for
}

const (
	allowedFile    = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"
	availableFile  = "/proc/sys/net/ipv4/tcp_available_congestion_control"
	sendBufferFile = "/proc/sys/net/core/wmem_max"
)

// set sets the variables, until the record is closed.
func (h hostVariables) set(r *record) error {
	for _, v := range [][2]string{{allowedFile, h.allowed}, {sendBufferFile, h.sendBuffer}} {
		if v[1] == "" {
			continue
		}
		if err := r.set(v[0], v[1]); err != nil {
			return err
		}
	}
	return nil
}

// needCongestionControls is an error where the kernel has not those that the
// cases use.
func needCongestionControls() error {
	available, err := os.ReadFile(availableFile)
	if err != nil {
		return err
	}
	for _, name := range []string{"cubic", "bbr"} {
		if !strings.Contains(" "+strings.TrimSpace(string(available))+" ", " "+name+" ") {
			return fmt.Errorf("the kernel has no congestion control %s: modprobe tcp_%s", name, name)
		}
	}
	return nil
}

// busyShare is how much of the processors' time was taken in the next second.
func busyShare(ctx context.Context) (float64, error) {
	busy, all, err := processorTime()
	if err != nil {
		return 0, err
	}
	if err := sleepUntil(ctx, time.Now().Add(time.Second)); err != nil {
		return 0, err
	}
	busyThen, allThen, err := processorTime()
	return (busyThen - busy) / max(allThen-all, 1), err
}

// processorTime returns how long the processors have been busy so far, and how
// long there were any.
func processorTime() (busy, all float64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	// user, nice, system, idle, waiting for a disk (idle too), two kinds of interrupts, others' on this machine
	var t [8]float64
	if _, err := fmt.Sscanf(string(text), "cpu %f %f %f %f %f %f %f %f", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]); err != nil {
		return 0, 0, fmt.Errorf("read /proc/stat: %w", err)
	}
	for _, x := range t {
		all += x
	}
	return all - t[3] - t[4], all, nil
}
