# Varnish by its own rules: what the origin says is kept as long as it says.
vcl 4.1;
backend origin {
    .host = "@HOST@";
    .port = "@ORIGINPORT@";
}
