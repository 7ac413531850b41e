//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lsst-dm/s3daemon/internal/child"
	"github.com/lsst-dm/s3daemon/internal/link"
)

// The store's account.
const (
	accessKey = "bench"
	secretKey = "bench-secret"
	region    = "us-east-1"
)

// The store's buckets.
const (
	bucket     = "wan"
	warmBucket = "warm" // for what a daemon sends to warm its connections
)

// A bed is a link with a store on its far side. Several cases can have it.
type bed struct {
	link     *link.Link
	dir      string // what belongs to the bed is in it
	buckets  string // directory in which each is one
	endpoint string
	ca       string // file with the authority of the store's certificate; empty without TLS
	store    *child.Server
}

// A bedKey tells beds apart.
type bedKey struct {
	shape      link.Shape
	sendBuffer int64
	tls        bool
}

func (b bench) bed() bedKey { return bedKey{b.shape(), b.SendBuffer, b.TLS} }

// newBed makes a bed whose store is the program at path, and which has its
// files in dir, on a file system in memory.
func newBed(ctx context.Context, k bedKey, path, dir string) (*bed, error) {
	b := &bed{dir: dir, buckets: filepath.Join(dir, "buckets")}
	for _, name := range []string{bucket, warmBucket} {
		if err := os.MkdirAll(filepath.Join(b.buckets, name), 0o755); err != nil {
			return nil, err
		}
	}
	var err error
	if b.link, err = link.New(k.shape); err != nil {
		return nil, err
	}
	if err = b.tune(k.sendBuffer); err == nil {
		err = b.startStore(ctx, path, k.tls)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// tune sets the variables of the two sides: cubic, as on most hosts, and
// buffers.
func (b *bed) tune(sendBuffer int64) error {
	return errors.Join(
		b.link.Near.Sysctl("net.ipv4.tcp_congestion_control", "cubic"),
		b.link.Far.Sysctl("net.ipv4.tcp_congestion_control", "cubic"),
		b.link.Near.Sysctl("net.ipv4.tcp_wmem", fmt.Sprintf("4096 16384 %d", sendBuffer)),
		b.link.Far.Sysctl("net.ipv4.tcp_rmem", fmt.Sprintf("4096 131072 %d", storeReceiveBuffer)),
	)
}

// startStore starts the store, and waits until it accepts connections.
func (b *bed) startStore(ctx context.Context, path string, overTLS bool) error {
	address := net.JoinHostPort(b.link.Far.Addr.String(), "7070")
	cmd := exec.Command(path, "-listen", address, "-dir", b.buckets)
	b.endpoint = "http://" + address
	if overTLS {
		files, err := makeCertificate(b.dir, b.link.Far.Addr)
		if err != nil {
			return err
		}
		cmd.Args = append(cmd.Args, "-cert", files.cert, "-key", files.key)
		b.endpoint, b.ca = "https://"+address, files.ca
	}
	cmd.Env = append(child.Env(), credentials()...)
	var err error
	b.store, err = child.Start(ctx, "the store", cmd, b.link.Far.Start, func(string) bool { return true })
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return retry(ctx, func() error {
		conn, err := dialer(b.link.Far)(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// has is an error unless the store has n objects of that size, under key(0) to
// key(n-1).
func (b *bed) has(n int, size int64) error {
	for i := range n {
		info, err := os.Stat(filepath.Join(b.buckets, bucket, key(i)))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("object %s of %d is not in the store, though its push has succeeded", key(i), n)
		}
		if err != nil {
			return err
		}
		if info.Size() != size {
			return fmt.Errorf("object %s has %d bytes in the store, and its file has %d", key(i), info.Size(), size)
		}
	}
	return nil
}

// empty removes what was pushed, all at once and past the store.
func (b *bed) empty() error {
	entries, err := os.ReadDir(filepath.Join(b.buckets, bucket))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".sgwtmp") {
			continue // the store's own
		}
		err = errors.Join(err, os.RemoveAll(filepath.Join(b.buckets, bucket, e.Name())))
	}
	return err
}

func (b *bed) close() error {
	var err error
	if b.store != nil {
		err = b.store.Stop()
	}
	return errors.Join(err, b.link.Close(), os.RemoveAll(b.dir))
}

// credentials are those of the store, as variables of a process.
func credentials() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey, "AWS_REGION=" + region}
}

// retry calls f until it returns no error.
func retry(ctx context.Context, f func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// dialer returns a function for an http.Transport that dials addresses from a
// side of the link. They have to be IP addresses.
func dialer(side *link.Side) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = side.Do(func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}

// clientOn returns a client whose connections begin on a side of the link.
func clientOn(side *link.Side) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: dialer(side), MaxIdleConnsPerHost: 1000}}
}

// nobody is a user without privileges.
func nobody() *syscall.SysProcAttr {
	const uid = 65534
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}
