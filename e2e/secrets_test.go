package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSecretsStayIn has a daemon at its most talkative meet all that can go wrong with
// secrets, and pushes. What it says to that is searched here and at the end of the
// suite, when the daemon's journal has been as well.
func TestSecretsStayIn(t *testing.T) {
	const password = "e2e-Proxy/pass+word"
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A proxy that repeats what it was told.
		http.Error(w, "not with "+r.Header.Get("Proxy-Authorization"), http.StatusProxyAuthRequired)
	}))
	defer refusing.Close()
	echoing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated does not match</Message><AWSAccessKeyId>%s</AWSAccessKeyId><StringToSign>%s</StringToSign></Error>",
			accessKey, r.Header.Get("Authorization"))
	}))
	defer echoing.Close()
	repeating := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Whatever it is told it says again, wherever there is room for it.
		form, _ := io.ReadAll(r.Body)
		authorization, token := r.Header.Get("Authorization"), r.Header.Get("X-Amz-Security-Token")
		w.Header().Set("X-Amz-Request-Id", token+authorization)
		status := http.StatusForbidden
		if r.URL.Path == "/credentials" {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"code": "Refused", "message": "your token %s is not one, nor %q"}`, authorization, r.URL.Query())
			return
		}
		if r.URL.Path == "/" && r.Method == http.MethodPost { // asked for credentials
			w.WriteHeader(status)
			fmt.Fprintf(w, "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>what is %s, or %s?</Message></Error></ErrorResponse>", html.EscapeString(string(form)), html.EscapeString(newToken))
			return
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>InvalidToken</Code><Message>the token %s of %s, which is %s or %s</Message><RequestId>%s</RequestId></Error>",
			strings.ReplaceAll(token, "+", "&#43;"), accessKey, url.QueryEscape(token), base64.StdEncoding.EncodeToString([]byte(token)), html.EscapeString(authorization))
	}))
	defer repeating.Close()
	raw := listenRaw(t, func(head string) string {
		_, rest, _ := strings.Cut(head, "X-Amz-Security-Token: ")
		token, _, _ := strings.Cut(rest, "\r\n")
		return token + "\r\n\r\n"
	})
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	defer untrusted.Close()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	program := func(script string) string {
		return file("config", "[default]\ncredential_process = sh "+file("keys", script, 0o600)+"\n", 0o600)
	}
	withProxy := strings.Replace(refusing.URL, "http://", "http://e2e-proxy-user:"+strings.ReplaceAll(password, "/", "%2F")+"@", 1)
	none := []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "PATH=" + os.Getenv("PATH")} // for a program
	push := makeFile(t, "file", 1000)
	for _, tt := range []struct {
		name string
		env  []string
		code string // of the push
		says string // the answer or the log, so that the test has what it is about
	}{
		{"a wrong key", []string{"AWS_SECRET_ACCESS_KEY=e2e-Secret/of+nobody"}, "store_refused", "SignatureDoesNotMatch"},
		{"a store that repeats what it hears", []string{"S3_ENDPOINT_URL=" + echoing.URL}, "store_refused", "SignatureDoesNotMatch"},
		{"a session token", []string{"S3_ENDPOINT_URL=" + echoing.URL, "AWS_SESSION_TOKEN=" + oldToken}, "store_refused", "SignatureDoesNotMatch"},
		{"a store that repeats all it hears", []string{"S3_ENDPOINT_URL=" + repeating.URL, "AWS_SESSION_TOKEN=" + oldToken}, "store_refused", "InvalidToken"},
		{"a store that repeats it to whoever waits", []string{"S3_ENDPOINT_URL=" + repeating.URL, "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_ACCESS_KEY_ID_FILE=" + file("id", accessKey, 0o600), "AWS_SECRET_ACCESS_KEY_FILE=" + file("secret", secretKey, 0o600), "AWS_SESSION_TOKEN_FILE=" + file("token", oldToken, 0o600)}, "store_refused", "InvalidToken"},
		{"an answer that is the token", []string{"S3_ENDPOINT_URL=http://" + raw, "AWS_SESSION_TOKEN=" + oldToken}, "store_unreachable", "malformed HTTP"},
		{"a service that repeats the identity that it is shown", append(none, "AWS_ENDPOINT_URL_STS="+repeating.URL, "AWS_ROLE_ARN=arn:aws:iam::123456789012:role/e2e", "AWS_WEB_IDENTITY_TOKEN_FILE="+file("identity", newToken, 0o600)), "no_credentials", "InvalidIdentityToken"},
		{"the endpoint of a container that repeats its token", append(none, "AWS_CONTAINER_CREDENTIALS_FULL_URI="+repeating.URL+"/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="+file("token", newToken, 0o600)), "no_credentials", "get credentials"},
		{"the same with a token that is set", append(none, "AWS_CONTAINER_CREDENTIALS_FULL_URI="+repeating.URL+"/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN="+newToken), "no_credentials", "get credentials"},
		{"a proxy that refuses, TLS", []string{"S3_ENDPOINT_URL=https://store.example", "HTTPS_PROXY=" + withProxy}, "store_unreachable", "Proxy Authentication Required"},
		{"a proxy that refuses", []string{"S3_ENDPOINT_URL=http://store.example", "HTTP_PROXY=" + withProxy}, "store_refused", "407"},
		{"a proxy that is not there", []string{"S3_ENDPOINT_URL=https://store.example", "HTTPS_PROXY=http://e2e-proxy-user:" + "e2e-Proxy-password@127.0.0.1:1"}, "store_unreachable", "refused"},
		{"an untrusted store", []string{"S3_ENDPOINT_URL=" + untrusted.URL}, "store_unreachable", "certificate"},
		{"a program that prints the secret and fails", append(none, "AWS_CONFIG_FILE="+program(`echo '{"Version": 1, "SecretAccessKey": "`+secretKey+`", '; echo '`+secretKey+`' >&2; exit 1`)), "no_credentials", "wrote to standard error"},
		{"a program that prints the secret as it should not", append(none, "AWS_CONFIG_FILE="+program(`echo '{"Version": 2, "AccessKeyId": "`+accessKey+`", "SecretAccessKey": "`+secretKey+`"}'`)), "no_credentials", "get credentials"},
		{"a token that the endpoint of a container refuses", append(none, "AWS_CONTAINER_CREDENTIALS_FULL_URI="+strings.Replace(echoing.URL, "127.0.0.1", "localhost", 1), "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="+file("token", newToken+"\nsecond line", 0o600)), "no_credentials", "get credentials"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := startDaemon(t, append(tt.env, "S3DAEMON_LOG_LEVEL=debug", "S3DAEMON_ATTEMPTS=2", "S3DAEMON_CONNECT_TIMEOUT=1s")...)
			a := d.push(t, push, "s3://raw/key")
			if !strings.Contains(string(a.body), `"`+tt.code+`"`) {
				t.Errorf("%d %s", a.status, a.body)
			}
			d.pushAsync(t, push, "s3://raw/async")
			said := string(a.body)
			for _, path := range []string{"/", "/metrics", "/readyz", "/pushes", "/openapi.yaml", "/nowhere"} {
				said += string(d.get(t, path).body)
			}
			watched, _ := d.watch(t).until("how it stands", func(e event) bool { return e.name == "status" })
			said += watched.text
			said += string(d.out.bytes())
			if !strings.Contains(said, tt.says) {
				t.Errorf("nobody says %q:\n%s", tt.says, d.out.bytes())
			}
			for _, secret := range []string{
				secretKey, accessKey, oldToken, newToken, password, "pass%2Bword", "e2e-Proxy-password",
				base64.StdEncoding.EncodeToString([]byte("e2e-proxy-user:" + password)), "AWS4-HMAC",
			} {
				checkNoSecret(t, "what it said", []byte(said), secret)
			}
		})
	}
}

// listenRaw has each request answered by what say makes of its head, but for the
// question whether anybody is there, and the connection closed. It returns the address.
func listenRaw(t *testing.T, say func(head string) string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var head string
				for buffer := make([]byte, 4096); !strings.Contains(head, "\r\n\r\n"); {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					head += string(buffer[:n])
				}
				if strings.HasPrefix(head, "HEAD / ") {
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					return
				}
				io.WriteString(conn, say(head))
			}()
		}
	}()
	return l.Addr().String()
}

// TestSecretsStayInAtTheStart has configurations that the daemon does not start with.
func TestSecretsStayInAtTheStart(t *testing.T) {
	half := filepath.Join(t.TempDir(), "half")
	if err := os.WriteFile(half, []byte("[default]\naws_access_key_id = "+accessKey+"\n"+secretKey+"\naws_secret_access_key\n = "+secretKey), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		env  []string
		says string
	}{
		"a profile with half of a pair":   {[]string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_SHARED_CREDENTIALS_FILE=" + half}, "partial credentials"},
		"a key in place of a file's name": {[]string{"AWS_SECRET_ACCESS_KEY=", "AWS_SECRET_ACCESS_KEY_FILE=" + secretKey}, "AWS_SECRET_ACCESS_KEY_FILE: it is not the absolute path"},
		"a key that begins like a path":   {[]string{"AWS_SECRET_ACCESS_KEY=", "AWS_SECRET_ACCESS_KEY_FILE=/" + secretKey}, "AWS_SECRET_ACCESS_KEY_FILE: the file that it names"},
		"a token in place of a name":      {[]string{"S3DAEMON_TOKEN_FILE=" + newToken}, "S3DAEMON_TOKEN_FILE: it is not the absolute path"},
		"a token that begins like a path": {[]string{"S3DAEMON_TOKEN_FILE=/" + newToken}, "S3DAEMON_TOKEN_FILE: the file that it names"},
		"a file that holds more":          {[]string{"AWS_SECRET_ACCESS_KEY=", "AWS_SECRET_ACCESS_KEY_FILE=" + half}, "holds white space"},
		"a password for the store":        {[]string{"S3_ENDPOINT_URL=https://me:" + newSecretKey + "@store"}, "S3_ENDPOINT_URL: "},
	} {
		t.Run(name, func(t *testing.T) {
			got := runCommand(t, environment(t, append(tt.env, "S3DAEMON_LOG_LEVEL=debug")...))
			if got.code != 2 || !strings.Contains(got.out, tt.says) {
				t.Errorf("exit status %d, and it wrote %s", got.code, got.out)
			}
			for _, secret := range []string{accessKey, secretKey, newSecretKey, newToken} {
				checkNoSecret(t, "the output", []byte(got.out), secret)
			}
		})
	}
}

// TestSecretsStayInAtAPanic ends a daemon in the way of a crash, by SIGQUIT: the
// goroutines that the runtime prints have no secret among them.
func TestSecretsStayInAtAPanic(t *testing.T) {
	d := startDaemon(t, "AWS_SESSION_TOKEN="+oldToken)
	d.signal(syscall.SIGQUIT)
	if code := d.wait(); code != 2 || !strings.Contains(string(d.out.bytes()), "goroutine ") {
		t.Errorf("it ended with %d and wrote %s", code, tail(d.out.bytes(), 500))
	}
	for _, secret := range []string{secretKey, accessKey, oldToken} {
		checkNoSecret(t, "what it wrote", d.out.bytes(), secret)
	}
}

// authority makes certificates that a store may have.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return &authority{t, key, signedCertificate(t, about, about, &key.PublicKey, key)}
}

func signedCertificate(t *testing.T, about, parent *x509.Certificate, public *ecdsa.PublicKey, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, about, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issue makes a certificate for a name, which ends in some time.
func (a *authority) issue(name string, left time.Duration) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(left),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		about.IPAddresses = []net.IP{ip}
	} else {
		about.DNSNames = []string{name}
	}
	return tls.Certificate{Certificate: [][]byte{signedCertificate(a.t, about, a.cert, &key.PublicKey, a.key).Raw}, PrivateKey: key}
}
