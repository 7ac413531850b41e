// Versitygw is the S3 server versitygw, with a directory of files behind it,
// as a process of its own that bench/wan starts. Each directory in DIR is a
// bucket.
//
//	versitygw -listen 10.99.0.2:7070 -dir DIR [-cert FILE -key FILE]
//
// Its one account is that of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. It
// keeps connections open, and ends on SIGTERM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	listen := flag.String("listen", "", "the `address` to serve on")
	dir := flag.String("dir", "", "the `directory` with the buckets, on a file system with extended attributes")
	cert := flag.String("cert", "", "`file` with the certificate: serve TLS")
	key := flag.String("key", "", "`file` with the certificate's key")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := serve(ctx, *listen, *dir, *cert, *key); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "versitygw:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, listen, dir, cert, key string) error {
	backend, err := posix.New(dir, meta.XattrMeta{}, posix.PosixOpts{})
	if err != nil {
		return err
	}
	return embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess:    os.Getenv("AWS_ACCESS_KEY_ID"),
		RootUserSecret:    os.Getenv("AWS_SECRET_ACCESS_KEY"),
		Ports:             []string{listen},
		CertFile:          cert,
		KeyFile:           key,
		MaxConnections:    1000,
		MaxRequests:       1000,
		MultipartMaxParts: 10000,
		KeepAlive:         true, // else it closes every connection after one request
		Quiet:             true,
	})
}
