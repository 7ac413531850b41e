//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// poolSize is how many connections net/http has, as many as the daemon.
const poolSize = 25

// A plainPool puts files by net/http and its pool of open connections, for
// scale: one PutObject a file, with a signature and no checksum.
type plainPool struct {
	endpoint string
	client   *http.Client
}

func newPlainPool(b *bed) (*plainPool, error) {
	transport := &http.Transport{
		DialContext:         dialer(b.link.Near),
		MaxConnsPerHost:     poolSize,
		MaxIdleConnsPerHost: poolSize,
	}
	if b.ca != "" {
		pem, err := os.ReadFile(b.ca)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	return &plainPool{endpoint: b.endpoint, client: &http.Client{Transport: transport}}, nil
}

// push puts all files at once and waits for the last.
func (p *plainPool) push(ctx context.Context, file string, size int64, n int) error {
	return atOnce(ctx, n, func(ctx context.Context, i int) error { return p.put(ctx, file, size, key(i)) })
}

func (p *plainPool) put(ctx context.Context, file string, size int64, key string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.endpoint+"/"+bucket+"/"+key, io.NewSectionReader(f, 0, size))
	if err != nil {
		return err
	}
	req.ContentLength = size
	const unsigned = "UNSIGNED-PAYLOAD"
	req.Header.Set("X-Amz-Content-Sha256", unsigned)
	account := aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}
	if err := v4.NewSigner().SignHTTP(ctx, account, req, unsigned, "s3", region, time.Now()); err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the store answered %s: %s", resp.Status, answer)
	}
	return err
}

func (p *plainPool) stop() error {
	p.client.CloseIdleConnections()
	return nil
}
