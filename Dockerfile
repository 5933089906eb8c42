# Hearth in an image of two files: the static binary and the root certificates that webhooks over https are checked with.
# scripts/hearth-image.sh puts both into target/image and builds this; no base image is fetched.
FROM scratch
COPY target/image/ /
EXPOSE 3000 4000 4001 7400 7400/udp
ENTRYPOINT ["/hearth"]
