//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
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

// set sets the variables and returns a function that sets them back.
func (h hostVariables) set() (restore func() error, err error) {
	return setFiles([][2]string{{allowedFile, h.allowed}, {sendBufferFile, h.sendBuffer}})
}

// setFiles writes values into files, but for empty ones.
func setFiles(values [][2]string) (restore func() error, err error) {
	var saved [][2]string
	restore = func() error {
		var err error
		for _, v := range saved {
			err = errors.Join(err, os.WriteFile(v[0], []byte(v[1]), 0))
		}
		return err
	}
	for _, v := range values {
		if v[1] == "" {
			continue
		}
		old, err := os.ReadFile(v[0])
		if err == nil {
			saved = append(saved, [2]string{v[0], string(old)})
			err = os.WriteFile(v[0], []byte(v[1]), 0)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("set a variable of the host: %w", err), restore())
		}
	}
	return restore, nil
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
