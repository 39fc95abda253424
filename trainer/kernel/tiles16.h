// Register blocks for 16 vector registers: AVX2, and what portable code meets.
#define KEEP 8
#define CONV_OT 3
#define CONV_P1 8
#define CONV_P2 4
#define CONV_P3 4
#define MIX_OT 6
#define MIX_PT(ot) ((ot) > 3 ? 2 : 4)
#define MIXGRAD_AT 4
#define MIXGRAD_BT 3
#define CONVGRAD_OT 4
#define CONVGRAD_Q 1
#define CONVGRAD_R1 3
#define CONVGRAD_R2 2
#define CONVGRAD_R3 1
#define CONVGRAD_R4 1
#define FMA_CHAINS 12
