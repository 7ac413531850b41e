package main

import (
	"fmt"

	"github.com/lsst-dm/s3daemon/secret"
)

// tokenFile returns the file with the token for the daemon; nil where none is
// named. Bad is told of a later content that cannot be used; it may be nil.
func tokenFile(getenv func(string) string, bad func(error)) (*secret.File[secret.Tokens], error) {
	path := getenv("S3DAEMON_TOKEN_FILE")
	if path == "" {
		return nil, nil
	}
	file, err := secret.Open(path, secret.ParseTokens, bad)
	if err != nil {
		return nil, fmt.Errorf("S3DAEMON_TOKEN_FILE: %w", err)
	}
	return file, nil
}

// tokenIn returns what tells the token to ask with, which may change; nil where
// there is no file.
func tokenIn(file *secret.File[secret.Tokens]) func() string {
	if file == nil {
		return nil
	}
	return func() string { return file.Get().First() }
}
