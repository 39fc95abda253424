// Register blocks for 16 vector registers: AVX2, and what portable code meets.
#define CONV_OT 4
#define CONV_P1 8
#define CONV_P2 4
#define CONV_P3 4
#define CONV_P4 2
#define MIX_OT 4
#define MIX_PT 2
#define MIXGRAD_AT 4
#define MIXGRAD_BT 2
#define CONVGRAD_OT 2
#define CONVGRAD_R1 3
#define CONVGRAD_R2 2
#define FMA_CHAINS 12
