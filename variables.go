package main

import (
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// variable is one row of the table of variables.
type variable struct{ name, fallback, description string }

// variables lists the daemon's own variables as the tags of environment have
// them, the only place where they are written down.
var variables = sync.OnceValue(func() []variable {
	t := reflect.TypeFor[environment]()
	out := make([]variable, 0, t.NumField())
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		out = append(out, variable{tag.Get("envconfig"), tag.Get("default"), tag.Get("desc")})
	}
	return out
})

// awsVariables are read by the AWS SDK; they are listed for the reader.
const awsVariables = `AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN|Credentials. Without them: shared files and profiles, web identity, container and instance roles.
AWS_REGION|Region to sign for; us-east-1 where no source names one.
AWS_PROFILE, AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE|The AWS SDK's shared files.
AWS_CA_BUNDLE|File with the certificates of the authorities that the store's certificate may come from.
HTTPS_PROXY, HTTP_PROXY, NO_PROXY|Proxies on the way to the store.`

// others are variables with our prefix that are meant for the send command.
var others = []string{"S3DAEMON_URL", "S3DAEMON_MAX_CLIENTS", "S3DAEMON_RETRY_FOR"}

// replaced are variables of the old Python daemon that mean nothing here.
var replaced = map[string]string{
	"S3DAEMON_MAX_RETRIES": "it counted the tries of a request: set S3DAEMON_ATTEMPTS",
	"S3DAEMON_HOST":        "it is the address of the old line protocol, which send -listen serves: set S3DAEMON_LISTEN",
	"S3DAEMON_PORT":        "it is the port of the old line protocol, which send -listen serves: set S3DAEMON_LISTEN",
}

// byKubernetes matches what Kubernetes puts into every pod beside a Service
// named s3daemon or s3daemon-something; that is nobody's mistake.
var byKubernetes = regexp.MustCompile(`^S3DAEMON_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)=|` +
	`^S3DAEMON_([A-Z0-9_]+_)?PORT=(tcp|udp|sctp)://`)

// warnings names the variables that begin with our prefix, are set, and do
// nothing.
func warnings(environ []string) []string {
	known := slices.Clone(others)
	for _, v := range variables() {
		known = append(known, v.name)
	}
	var out []string
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case !strings.HasPrefix(name, "S3DAEMON_") || value == "" || slices.Contains(known, name) || byKubernetes.MatchString(entry):
		case replaced[name] != "":
			out = append(out, fmt.Sprintf("%s has no effect: %s", name, replaced[name]))
		default:
			out = append(out, fmt.Sprintf("%s is not a variable of this daemon: s3daemon -help lists them", name))
		}
	}
	slices.Sort(out)
	return out
}

// printVariables writes the table of variables for -help.
func printVariables(w io.Writer) {
	for _, v := range variables() {
		fallback := ""
		if v.fallback != "" {
			fallback = " (default " + v.fallback + ")"
		}
		fmt.Fprintf(w, "  %s%s\n        %s\n", v.name, fallback, v.description)
	}
	for line := range strings.Lines(awsVariables) {
		names, description, _ := strings.Cut(strings.TrimSpace(line), "|")
		fmt.Fprintf(w, "  %s\n        %s\n", names, description)
	}
}
