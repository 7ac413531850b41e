package uploader

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/lsst-dm/s3daemon/secret"
)

// Keys are credentials that the daemon's own configuration has, each as a value or as
// the path of a file that holds it. They go before all that the SDK knows.
type Keys struct {
	ID, Secret, Token             string
	IDFile, SecretFile, TokenFile string
}

// inFiles reports whether any is in a file; else they are the SDK's matter.
func (k Keys) inFiles() bool { return k.IDFile != "" || k.SecretFile != "" || k.TokenFile != "" }

// Check returns what is wrong with the files, never with what they hold in it.
func (k Keys) Check() error {
	if !k.inFiles() {
		return nil
	}
	_, err := k.read()
	return err
}

// read returns the credentials as they are now.
func (k Keys) read() (aws.Credentials, error) {
	var mistakes []error
	value := func(text, path, name string) string {
		if path == "" {
			return text
		}
		text, err := readKey(path)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", name, err))
		}
		return text
	}
	got := aws.Credentials{
		AccessKeyID:     value(k.ID, k.IDFile, "AWS_ACCESS_KEY_ID_FILE"),
		SecretAccessKey: value(k.Secret, k.SecretFile, "AWS_SECRET_ACCESS_KEY_FILE"),
		SessionToken:    value(k.Token, k.TokenFile, "AWS_SESSION_TOKEN_FILE"),
		Source:          "files",
	}
	return got, errors.Join(mistakes...)
}

// longestKey is the most that a file with a key holds, in bytes: session tokens
// have some thousand.
const longestKey = 64 << 10

// readKey reads a key from a file, less the newline at its end. Errors name the file
// and not what it holds.
func readKey(path string) (string, error) {
	_, content, err := secret.Read(path, longestKey)
	if err != nil {
		return "", err
	}
	key := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	switch {
	case key == "":
		return "", fmt.Errorf("%s is empty", path)
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "", fmt.Errorf("%s holds white space or another character that no key has", path)
	}
	return key, nil
}

// origin is where credentials come from, as it was found at one time.
type origin struct {
	provider aws.CredentialsProvider
	files    []string // that say what it is; a change means that it may be another
	tokens   []string // those of them that are a secret as a whole
	keys     []string // what else the source is shown, or asked by
	held     digest   // of these, no later than they were read
	fixed    bool     // it cannot change while the process lives
}

// retrieve asks for credentials, and for new ones where the SDK keeps some.
func (o origin) retrieve(ctx context.Context) (aws.Credentials, error) {
	if cache, ok := o.provider.(interface{ Invalidate() }); ok {
		cache.Invalidate()
	}
	got, err := o.provider.Retrieve(ctx)
	if err == nil && !got.HasKeys() {
		err = errors.New("the source gave none")
	}
	return got, err
}

// originOf returns where the credentials of a configuration come from.
func originOf(keys Keys, shared aws.Config) origin {
	if keys.inFiles() {
		return origin{
			provider: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return keys.read() }),
			files:    present(keys.IDFile, keys.SecretFile, keys.TokenFile),
		}
	}
	o := origin{provider: shared.Credentials}
	var environment config.EnvConfig
	var profile config.SharedConfig
	for _, source := range shared.ConfigSources {
		switch s := source.(type) {
		case config.EnvConfig:
			environment = s
		case config.SharedConfig:
			profile = s
		}
	}
	o.fixed = environment.Credentials.HasKeys()
	if o.fixed {
		return o
	}
	o.tokens = []string{environment.WebIdentityTokenFilePath, os.Getenv(containerTokenFile)}
	o.keys = []string{os.Getenv(containerToken)}
	for p := &profile; p != nil; p = p.Source {
		o.tokens = append(o.tokens, p.WebIdentityTokenFile)
		o.keys = append(o.keys, p.Credentials.AccessKeyID, p.Credentials.SecretAccessKey, p.Credentials.SessionToken)
	}
	o.files = present(append(sharedFiles(environment), o.tokens...)...)
	return o
}

// hide has what the source is asked by taken out of all that it says.
func (o origin) hide() {
	secret.Hide(o.keys...)
	for _, path := range o.tokens {
		_, content, _ := secret.Read(path, longestKey)
		secret.Hide(strings.Fields(string(content))...)
	}
}

// containerTokenFile names the file with the token by which a container asks for its
// credentials.
const containerTokenFile = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"

// containerToken holds the token itself.
const containerToken = "AWS_CONTAINER_AUTHORIZATION_TOKEN"

// sharedFiles returns the SDK's shared files, whether they exist or not.
func sharedFiles(environment config.EnvConfig) []string {
	var files []string
	for _, of := range []struct {
		name     string
		defaults []string
	}{
		{environment.SharedConfigFile, config.DefaultSharedConfigFiles},
		{environment.SharedCredentialsFile, config.DefaultSharedCredentialsFiles},
	} {
		if of.name != "" {
			files = append(files, of.name)
		} else {
			files = append(files, of.defaults...)
		}
	}
	return files
}

// present returns the names that are not empty, each once, in order.
func present(names ...string) []string {
	var out []string
	for _, name := range names {
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// loadOrigin finds where credentials come from. What it returns was read no earlier
// than its digest.
func loadOrigin(ctx context.Context, keys Keys) (origin, error) {
	var held digest
	var files []string
	for {
		shared, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return origin{}, err
		}
		o := originOf(keys, shared)
		if o.fixed || files != nil && slices.Equal(files, o.files) {
			o.held = held
			return o, nil
		}
		if ctx.Err() != nil { // they change again and again
			return origin{}, ctx.Err()
		}
		files = append([]string{}, o.files...)
		held, _ = digestOf(files)
	}
}

// digest stands for what files hold.
type digest [sha256.Size]byte

// longestShared is the most of a file that is read to see whether it has changed.
const longestShared = 1 << 20

// digestOf returns the digest of files, and when the newest was written. What they
// hold counts, not what they are: a link that leads elsewhere, another file under the
// name and the same file written anew come to the same.
func digestOf(files []string) (held digest, written time.Time) {
	sum := sha256.New()
	for _, path := range files {
		info, content, err := secret.Read(path, longestShared)
		if err == nil && info.ModTime().After(written) {
			written = info.ModTime()
		}
		part := sha256.Sum256(content)
		fmt.Fprintf(sum, "%t %x\n", err == nil, part)
	}
	return digest(sum.Sum(nil)), written
}

// exposed returns those of the files that other users of the host may read or write. The
// shared configuration is not among them: it need hold no secret. Nor is what Kubernetes
// has put into a volume: nobody is there but the containers that were given it, and its
// mode, by which all may read, is not for its user to change.
func (o origin) exposed() []string {
	return slices.DeleteFunc(slices.Clone(o.files), func(path string) bool {
		info, err := os.Stat(path)
		configuration := path == os.Getenv("AWS_CONFIG_FILE") || slices.Contains(config.DefaultSharedConfigFiles, path)
		return err != nil || configuration || inKubernetesVolume(path) || !info.Mode().IsRegular() || info.Mode().Perm()&0o006 == 0
	})
}

// inKubernetesVolume tells a file of a volume that is made of a Secret or a token by the
// link through which Kubernetes changes all its files at once.
func inKubernetesVolume(path string) bool {
	info, err := os.Lstat(filepath.Join(filepath.Dir(path), "..data"))
	return err == nil && info.Mode().Type() == os.ModeSymlink
}
